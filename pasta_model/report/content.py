# SPDX-License-Identifier: Apache-2.0
"""Words that every report says: what twins are, what the numbers do not show, what a model is for."""

TWINS_NOTICE = (
    "Every subject in this report is a digital twin: a generated scan, not a patient."
    " The numbers show that the software works, and nothing about people."
)
LIMITS = (
    "One run is one seed: a small difference between two methods can turn round with another seed.",
    "The intervals draw subjects anew; they say nothing of another training.",
    "MAE rewards blur: the mean of all possible PETs has the lowest error. Read it with SSIM and roughness.",
    "SSIM and PSNR depend on data range and mask; compare them with other work only when both are the same.",
    "A small MetaROI error means that regional averages agree: it tells nothing of a lesion or a diagnosis.",
    "A synthetic PET is inferred from an MRI: hypometabolism that leaves no mark there cannot be seen in it.",
    "A reader of synthetic PETs may read what the MRI says already: compare it with the reader of the MRI.",
    "Many comparisons stand on this page: of intervals at 95 %, one in twenty misses its value by chance.",
    "A scan from a scanner, a population or a disease that no site has trained on was not tested.",
    "The pictures are the median, worst and best of a rule: they show how such cases look, not how often.",
)
DEVICE = "Research software, not a medical device."
INTENDED = (
    "Research on federated learning, on MRI-to-PET translation, and on how both are evaluated.",
    "Method development: a baseline to be beaten, on the same splits and measures.",
)
OUT_OF_SCOPE = (
    "The care of any patient: diagnosis, staging, triage, or to decide whether a PET is needed.",
    "A stand-in for measured PETs in a trial, a normative database or a treatment decision.",
    "MRI of other contrasts, or prepared in another way; people unlike those of the training sites.",
    "Other tracers: amyloid and tau are not inferred from metabolism.",
)
ETHICS = (
    "A synthetic PET looks like a measured one. Name it as synthetic wherever it is shown, stored or sent.",
    "Weights can remember the people that they were trained on; without a privacy budget nothing bounds it.",
    "Sites differ in whom they treat: a model can serve small sites and rare groups worse. See the tables.",
)
