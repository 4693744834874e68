// main() for fuzz targets where libFuzzer is not used: runs the target's entry point over a corpus and over mutations
// of it that are the same on every run, so that it can be a test.
//
//   some_fuzz [CORPUS_DIR_OR_FILE ...]
//
// Inputs: the empty input, the files given, and the seeds that the target offers (UpdraftFuzzSeeds, seeds.h). A file
// given alone is how a failing input is replayed. Environment: UPDRAFT_FUZZ_RUNS (mutations, default 20000; 0 replays
// only), UPDRAFT_FUZZ_SEED, UPDRAFT_FUZZ_SECONDS (stops early after that long, default 120, and says so).
//
// When the target crashes, the input is kept in the temporary directory and its path printed.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/seeds.h"
#include "tests/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context);
// Sanitizers end the process without a signal that a handler sees; they call this instead.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Input = std::string;

// ---- What to say and keep when the target crashes -----------------------------------------------------------------

const Input* current_input = nullptr;
char crash_path[512];

// Only async-signal-safe calls.
void KeepCurrentInput() {
  if (current_input == nullptr) return;
  const int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  const bool kept =
      write(fd, current_input->data(), current_input->size()) == static_cast<ssize_t>(current_input->size());
  close(fd);
  constexpr char kKept[] = "\nfuzz: the failing input is in ";
  if (kept && write(2, kKept, sizeof(kKept) - 1) > 0 && write(2, crash_path, std::strlen(crash_path)) > 0) {
    (void)!write(2, "\n", 1);
  }
  current_input = nullptr;
}

void OnSignal(int signal) {
  KeepCurrentInput();
  std::signal(signal, SIG_DFL);
  raise(signal);
}

void WatchForCrashes(const char* program) {
  const std::string name = std::filesystem::path(program).filename().string();
  std::snprintf(crash_path, sizeof(crash_path), "%s/%s-crash-%d", std::filesystem::temp_directory_path().c_str(),
                name.c_str(), static_cast<int>(getpid()));
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(KeepCurrentInput);
    std::signal(SIGABRT, OnSignal);  // the others are the sanitizer's, which explains them better
    return;
  }
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) std::signal(signal, OnSignal);
}

// ---- Mutations ----------------------------------------------------------------------------------------------------

class Random : public updraft::testing::SplitMix {
 public:
  using SplitMix::SplitMix;
  size_t Below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(Next() % n); }
};

// Numbers that lengths, counts and offsets go wrong at.
uint64_t InterestingNumber(Random& random) {
  switch (random.Below(5)) {
    case 0:
      return random.Below(64);
    case 1:
      return uint64_t{1} << random.Below(64);
    case 2:
      return (uint64_t{1} << random.Below(64)) - 1;
    case 3:
      return ~uint64_t{0} - random.Below(64);
    default:
      return random.Next();
  }
}

constexpr size_t kMaxInputBytes = 1 << 20;

void Overwrite(Input& input, size_t at, uint64_t number, size_t n_bytes) {
  if (input.empty()) return;
  for (size_t i = 0; i < n_bytes && at + i < input.size(); ++i) input[at + i] = static_cast<char>(number >> (8 * i));
}

void MutateOnce(Input& input, const std::vector<Input>& seeds, Random& random) {
  const size_t at = random.Below(input.size() + 1);
  const size_t run = 1 + random.Below(random.Below(4) == 0 ? 256 : 8);
  switch (random.Below(9)) {
    case 0:
      if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << random.Below(8)));
      break;
    case 1:
      Overwrite(input, at, random.Next(), 1);
      break;
    case 2:
      Overwrite(input, at, InterestingNumber(random), 4);
      break;
    case 3:
      Overwrite(input, at, InterestingNumber(random), 8);
      break;
    case 4:
      input.erase(at, run);
      break;
    case 5:
      input.insert(at, run, static_cast<char>(random.Next()));
      break;
    case 6:
      input.insert(at, Input(input, random.Below(input.size() + 1), run));
      break;
    case 7:
      input.resize(at);
      break;
    default: {  // the start of this one and the end of another
      const Input& other = seeds[random.Below(seeds.size())];
      input = input.substr(0, at) + other.substr(random.Below(other.size() + 1));
    }
  }
  if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
}

// Mostly small changes: an input that is wrong in many places is refused at the first.
Input Mutated(const std::vector<Input>& seeds, Random& random) {
  Input input = seeds[random.Below(seeds.size())];
  const size_t n = 1 + random.Below(random.Below(4) == 0 ? 16 : 3);
  for (size_t i = 0; i < n; ++i) MutateOnce(input, seeds, random);
  return input;
}

// ---- Running ------------------------------------------------------------------------------------------------------

void RunOne(const Input& input) {
  // A block of exactly that size: a sanitizer then sees each byte read beyond it.
  std::vector<uint8_t> bytes(input.begin(), input.end());
  current_input = &input;
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  current_input = nullptr;
}

bool AddFile(const std::filesystem::path& path, std::vector<Input>& seeds) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    std::fprintf(stderr, "fuzz: cannot read '%s'\n", path.c_str());
    return false;
  }
  seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  return true;
}

// Directory entries in name order: the order decides what each mutation starts from.
bool AddPath(const std::filesystem::path& path, std::vector<Input>& seeds) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return AddFile(path, seeds);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return std::all_of(files.begin(), files.end(), [&seeds](const auto& file) { return AddFile(file, seeds); });
}

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 0) : fallback;
}

}  // namespace

int main(int argc, char** argv) {
  WatchForCrashes(argv[0]);
  std::vector<Input> seeds = {Input()};
  for (int i = 1; i < argc; ++i) {
    if (!AddPath(argv[i], seeds)) return 2;
  }
  const size_t n_files = seeds.size() - 1;
  if (UpdraftFuzzSeeds != nullptr) {
    UpdraftFuzzSeeds([](void* context, const uint8_t* data,
                        size_t size) { static_cast<std::vector<Input>*>(context)->emplace_back(data, data + size); },
                     &seeds);
  }
  const uint64_t runs = FromEnvironment("UPDRAFT_FUZZ_RUNS", 20000);
  const uint64_t seed = FromEnvironment("UPDRAFT_FUZZ_SEED", 1);
  const auto limit = std::chrono::seconds(FromEnvironment("UPDRAFT_FUZZ_SECONDS", 120));
  std::printf("fuzz: %zu files, %zu built-in seeds, %llu mutations from seed %llu\n", n_files,
              seeds.size() - 1 - n_files, static_cast<unsigned long long>(runs), static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  const auto start = std::chrono::steady_clock::now();
  for (const Input& input : seeds) RunOne(input);
  Random random(seed);
  uint64_t done = 0;
  while (done < runs && std::chrono::steady_clock::now() - start < limit) {
    RunOne(Mutated(seeds, random));
    ++done;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("fuzz: ran %zu inputs and %llu mutations in %.1f s%s\n", seeds.size(),
              static_cast<unsigned long long>(done), seconds, done < runs ? ", stopped by UPDRAFT_FUZZ_SECONDS" : "");
  return 0;
}
