"""The command line, the pipeline and the report. The only part of the package that knows agents and reward models."""
