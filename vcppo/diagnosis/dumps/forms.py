"""The forms of dumps that are known, and which of them a file is."""

from collections.abc import Mapping

from vcppo.diagnosis.dumps import generic, lighteval, nemo_rl, openrlhf, own, slime, trl, verl
from vcppo.diagnosis.dumps.form import Form

FORMS: Mapping[str, Form] = {  # a file is of the first that fits its columns
    "verl": verl.FORM,
    "trl": trl.FORM,
    "openrlhf": openrlhf.FORM,
    "nemo-rl": nemo_rl.FORM,
    "slime": slime.FORM,
    "lighteval": lighteval.FORM,
    "vcppo": own.FORM,
    "generic": generic.FORM,
}


def form_of(columns: frozenset[str]) -> str:
    """The name of the form that rows with these columns have."""
    return next(name for name, form in FORMS.items() if form.fits(columns))
