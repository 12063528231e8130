"""Pages and figures made from run folders."""

from sdpo.report.compare import compare
from sdpo.report.run_page import run_report
from sdpo.report.select import Chosen, choose

__all__ = ["Chosen", "choose", "compare", "run_report"]
