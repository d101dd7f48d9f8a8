"""What the commands of SWE-Bench Runner import: one module a noun, none prints, only `cli` parses arguments."""
