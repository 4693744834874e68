# What a ctest run did not test, one line each with the reason. Input: build/PRESET/Testing/Temporary/LastTest.log.
# ctest itself calls a program passed that skipped all its tests, and keeps what a passing program said to itself. A test
# that is a script says "SKIPPED: reason" on a line of its own.
/^[0-9]+\/[0-9]+ Testing: / { program = $3; reason = ""; awaiting_reason = 0; next }
/: Skipped$/ { reason = ""; awaiting_reason = 1; next }
/^\[  SKIPPED \] .* ms\)$/ {  # the list at a program's end repeats the names without a time
  name = substr($0, 14)
  sub(/ \([0-9]+ ms\)$/, "", name)
  print program " " name ": " (reason == "" ? "no reason given" : reason)
  reason = ""; awaiting_reason = 0
  next
}
awaiting_reason && NF { reason = $0; awaiting_reason = 0; next }
/^SKIPPED: / { print program ": " substr($0, 10) }
