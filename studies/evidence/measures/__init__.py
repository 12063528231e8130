"""What is measured on the policies that runs left behind: skills (what is lost), and what the teacher knows."""
