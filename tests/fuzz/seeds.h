// How a fuzz target offers inputs to start from, beside the files of its corpus.
#ifndef UPDRAFT_TESTS_FUZZ_SEEDS_H_
#define UPDRAFT_TESTS_FUZZ_SEEDS_H_

#include <cstddef>
#include <cstdint>

// Copies the bytes.
using UpdraftFuzzAddSeed = void (*)(void* context, const uint8_t* data, size_t size);

// A target may define this; it calls add(context, ...) once per seed. (libFuzzer builds do not use it: give them a
// corpus directory.)
extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context);

#endif  // UPDRAFT_TESTS_FUZZ_SEEDS_H_
