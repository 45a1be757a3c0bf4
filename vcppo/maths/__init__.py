"""The paper's formulas as pure functions: values in, values out, no settings object, no model."""
