"""Readings of several critics, made comparable: the responses that all could read, at the tokens that all read."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vcppo.diagnosis.responses import Reading
from vcppo.errors import DataError


def rows_of(reading: Reading) -> Tensor:
    """[B] int64: which of the dump's responses a reading is of."""
    return torch.arange(len(reading.values)) if reading.rows is None else reading.rows


def shared_readings(readings: Sequence[Reading]) -> list[Reading]:
    """Readings of those responses that all critics could read, at the tokens that all give values to.

    Critics of several tokenizers that were read at the boundaries of one of them are compared where all have one.

    Raises:
        DataError: there is no such response, or critics of several tokenizers read each at its own tokens.
    """
    rows = [rows_of(reading).tolist() for reading in readings]
    known = set(rows[0]).intersection(*rows[1:])
    if not known:
        raise DataError(f"{', '.join(reading.critic for reading in readings)}: no response that all of them can read")
    shared = [_shared(reading, own, known) for reading, own in zip(readings, rows, strict=True)]
    if any(reading.columns is not None for reading in shared):
        columns = [_columns(reading) for reading in shared]
        return shared if all(own == columns[0] for own in columns[1:]) else _at_common_tokens(shared, columns)
    for reading in shared[1:]:
        if reading.response_mask.sum(dim=1).tolist() != shared[0].response_mask.sum(dim=1).tolist():
            raise DataError(
                f"{reading.critic} and {shared[0].critic} have other tokenizers and read at other tokens; expected "
                "critics of one tokenizer, responses as text, or a diagnosis for each"
            )
    return shared


def _columns(reading: Reading) -> list[list[int]]:
    """Return the token of its response that each value stands before, response by response."""
    lengths = reading.response_mask.sum(dim=1).tolist()
    if reading.columns is None:
        return [list(range(length)) for length in lengths]
    return [row[:length] for row, length in zip(reading.columns.tolist(), lengths, strict=True)]


def _at_common_tokens(readings: Sequence[Reading], columns: Sequence[list[list[int]]]) -> list[Reading]:
    common = [sorted(set(rows[0]).intersection(*rows[1:])) for rows in zip(*columns, strict=True)]
    tokens = max(sum(map(len, own)) for own in columns)
    both = sum(map(len, common))
    note = f"critics of several tokenizers are compared where all begin a token, at {both:,} of {tokens:,} tokens"
    padded = pad_sequence([torch.tensor(row, dtype=torch.int64) for row in common], batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in common])[:, None]
    result = []
    for reading, own in zip(readings, columns, strict=True):
        places = [
            torch.tensor([at[column] for column in row], dtype=torch.int64)
            for row, at in zip(common, ({c: i for i, c in enumerate(there)} for there in own), strict=True)
        ]
        index = pad_sequence(places, batch_first=True)
        result.append(
            replace(
                reading,
                values=torch.where(mask, reading.values.gather(1, index), 0.0),
                returns=torch.where(mask, reading.returns.gather(1, index), 0.0),
                tokens=None if reading.tokens is None else reading.tokens.gather(1, index),
                columns=padded,
                response_mask=mask,
                notes=(*reading.notes, note),
            )
        )
    return result


def _shared(reading: Reading, rows: Sequence[int], known: set[int]) -> Reading:
    members = [place for place, row in enumerate(rows) if row in known]
    if len(members) == len(rows):
        return reading
    line = f"{len(rows) - len(members):,} responses that not all critics can read are left out"
    return reading.take(torch.tensor(members), line)
