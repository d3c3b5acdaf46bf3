"""The reference column: what each kernel means, as plain array code on any array namespace. One file per domain."""
