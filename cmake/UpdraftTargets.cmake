# One way to declare a library, a program and a test, so that flags and include roots are the same everywhere.
# Includes are written from the repository root ("common/gguf/reader.h"), so that one which goes through no door compiles; the doors
# between folders are held by tests/run/doors_test.cc. DEPS say what is linked.

add_library(updraft_flags INTERFACE)
target_include_directories(updraft_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(updraft_flags INTERFACE -Wall -Wextra -Werror -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these inside the standard library and intrinsics headers at -O2 and above, for correct code.
  target_compile_options(updraft_flags INTERFACE -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds
                                                 -Wno-restrict)
endif()
if(UPDRAFT_SANITIZE STREQUAL "address")
  target_compile_options(updraft_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined
                                                 -fno-omit-frame-pointer)
  target_link_options(updraft_flags INTERFACE -fsanitize=address,undefined)
elseif(UPDRAFT_SANITIZE STREQUAL "thread")
  target_compile_options(updraft_flags INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(updraft_flags INTERFACE -fsanitize=thread)
elseif(NOT UPDRAFT_SANITIZE STREQUAL "")
  message(FATAL_ERROR "UPDRAFT_SANITIZE: expected '', 'address' or 'thread', found '${UPDRAFT_SANITIZE}'")
endif()
if(UPDRAFT_FUZZ)
  target_compile_options(updraft_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# updraft_library(NAME SRCS a.cc ... DEPS t ...)
function(updraft_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_link_libraries(${name} PUBLIC updraft_flags ${ARG_DEPS})
endfunction()

# updraft_program(NAME OUTPUT file-name SRCS a.cc ... DEPS t ...)
function(updraft_program name)
  cmake_parse_arguments(ARG "" "OUTPUT" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE updraft_flags ${ARG_DEPS})
  if(ARG_OUTPUT)
    set_target_properties(${name} PROPERTIES OUTPUT_NAME ${ARG_OUTPUT})
  endif()
endfunction()

# What is worth repeating under a sanitizer: under ThreadSanitizer what runs several threads, under ASan/UBSan what parses or owns memory.
set(sanitized_tests agent_auditor_test agent_grpc_test agent_handover_bounds_test agent_handover_test agent_http_test agent_live_answer_test agent_local_worker_test
    agent_test agent_upstream_test cloud_front_test cloud_held_answer_test cloud_service_test edge_answer_test engine_test http_lanes_test http_server_limits_test
    http_server_test mapped_file_test relay_test rpc_test serving_grpc_test serving_http_test serving_once_test)
if(NOT UPDRAFT_SANITIZE STREQUAL "thread")
  list(APPEND sanitized_tests available_memory_test byte_bpe_test chat_template_test cockpit_ask_back_test decode_test detokenizer_test formats_test generator_test gguf_test
              http_openai_test jinja_template_test model_test pretokenize_test relay_trace_test serving_request_test tokenizer_test tools_test)
endif()

# What ThreadSanitizer cannot see of gRPC and Abseil, told by the tests themselves.
if(UPDRAFT_SANITIZE STREQUAL "thread")
  add_library(updraft_tsan_bridge OBJECT ${PROJECT_SOURCE_DIR}/tests/tsan_bridge.cc)
  target_link_libraries(updraft_tsan_bridge PRIVATE updraft_flags)
endif()

# updraft_test(NAME SRCS a_test.cc ... DEPS t ... [LABELS l ...] [TIMEOUT s] [SHARDS n] [MAIN])
# One ctest entry per test program (or per shard). MAIN: the sources bring their own main(). ./run test repeats the
# sanitized_tests under ASan/UBSan and TSan (target sanitize_tests, label `sanitize`); ./run soak repeats all of them.
# A test of something that these options do not build is left out.
function(updraft_test name)
  cmake_parse_arguments(ARG "MAIN" "TIMEOUT;SHARDS" "SRCS;DEPS;LABELS;ENV" ${ARGN})
  foreach(dep IN LISTS ARG_DEPS)
    if(dep MATCHES "^updraft_" AND NOT TARGET ${dep})
      message(STATUS "test ${name}: left out, ${dep} is not built with these options")
      return()
    endif()
  endforeach()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE updraft_flags ${ARG_DEPS} GTest::gmock GTest::gtest)
  if(NOT ARG_MAIN)
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_SHARDS)
    set(ARG_SHARDS 1)
  endif()
  math(EXPR last "${ARG_SHARDS} - 1")
  if(TARGET updraft_tsan_bridge)
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:updraft_tsan_bridge>)
  endif()
  if(name IN_LIST sanitized_tests)
    add_dependencies(sanitize_tests ${name})
    list(APPEND ARG_LABELS sanitize)
  endif()
  foreach(shard RANGE ${last})
    set(entry ${name})
    if(ARG_SHARDS GREATER 1)
      set(entry "${name}.${shard}")
    endif()
    add_test(NAME ${entry} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${entry} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${ARG_SHARDS};GTEST_SHARD_INDEX=${shard};UPDRAFT_SOURCE_DIR=${PROJECT_SOURCE_DIR};UPDRAFT_BIN_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp;${ARG_ENV}")
  endforeach()
endfunction()

# updraft_fuzz(NAME SRCS a_fuzz.cc ... DEPS t ... [CORPUS dir] [RUNS n])
# With clang (UPDRAFT_FUZZ): a libFuzzer program. Always: the same entry point run over its corpus and deterministic
# mutations of it, as a test (tests/fuzz/driver.cc supplies main()). RUNS: mutations of that test, where an input takes long.
function(updraft_fuzz name)
  cmake_parse_arguments(ARG "" "CORPUS;RUNS" "SRCS;DEPS" ${ARGN})
  if(UPDRAFT_FUZZ)
    add_executable(${name} ${ARG_SRCS})
    target_link_libraries(${name} PRIVATE updraft_flags ${ARG_DEPS})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/tests/fuzz/driver.cc)
    target_link_libraries(${name} PRIVATE updraft_flags ${ARG_DEPS})
    add_test(NAME ${name} COMMAND ${name} ${ARG_CORPUS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES TIMEOUT 300 LABELS fuzz)
    if(ARG_RUNS)
      set_tests_properties(${name} PROPERTIES ENVIRONMENT "UPDRAFT_FUZZ_RUNS=${ARG_RUNS}")
    endif()
  endif()
endfunction()
