"""Tool calls: the Berkeley Function-Calling Leaderboard, ToolAlpaca, and rows like theirs.

calls        what an answer calls, in three forms
leaderboard  whether these are the calls that count, by the leaderboard's rules
toolalpaca   the same for rows with one right answer, and for descriptions of tools
bfcl         rows and prompts of the leaderboard
services     its conversations with simulated services, replayed
"""

from __future__ import annotations

from sdpo.envs.tools.environment import ToolsEnvironment

__all__ = ["ToolsEnvironment"]
