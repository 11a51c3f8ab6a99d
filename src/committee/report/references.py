"""The publications behind the methods, as the pages cite them."""

from __future__ import annotations

WILSON = (
    "E. B. Wilson, “Probable inference, the law of succession, and statistical inference”, "
    "Journal of the American Statistical Association 22, 1927: intervals of accuracies."
)
BRIER = (
    "G. W. Brier, “Verification of forecasts expressed in terms of probability”, Monthly Weather Review 78, 1950: "
    "the Brier score."
)
MCNEMAR = (
    "Q. McNemar, “Note on the sampling error of the difference between correlated proportions or percentages”, "
    "Psychometrika 12, 1947: the test of two single trainings on the same images."
)
HOLM = (
    "S. Holm, “A simple sequentially rejective multiple test procedure”, Scandinavian Journal of Statistics 6, 1979: "
    "the adjustment of p-values for the number of comparisons."
)
TANGO = (
    "T. Tango, “Equivalence test and confidence interval for the difference in proportions for the paired-sample "
    "design”, Statistics in Medicine 17, 1998: the interval of the difference of two single trainings."
)
GUO = (
    "C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, “On calibration of modern neural networks”, ICML 2017, "
    "arXiv 1706.04599: expected calibration error, reliability diagrams and temperature scaling."
)
LAKSHMINARAYANAN = (
    "B. Lakshminarayanan, A. Pritzel and C. Blundell, “Simple and scalable predictive uncertainty estimation using "
    "deep ensembles”, NIPS 2017, arXiv 1612.01474: committees of independently trained networks."
)
HINTON = (
    "G. Hinton, O. Vinyals and J. Dean, “Distilling the knowledge in a neural network”, 2015, arXiv 1503.02531: "
    "students of soft answers."
)
BEYER = (
    "L. Beyer, X. Zhai, A. Royer, L. Markeeva, R. Anil and A. Kolesnikov, “Knowledge distillation: a good teacher is "
    "patient and consistent”, CVPR 2022, arXiv 2106.05237: teacher and student see the same random changes."
)
