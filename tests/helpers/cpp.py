"""What is called of ONNX Runtime's C++ interface, whose headers no Python package has."""

from __future__ import annotations

# Writes what a session is given to stderr.
HEADER = """
#pragma once
#include <cstdint>
#include <cstdio>
#include <vector>
#define ORT_TSTR(text) text
enum { ORT_LOGGING_LEVEL_WARNING, OrtArenaAllocator, OrtMemTypeDefault };
namespace Ort {
struct Env { Env(int, const char*) {} };
struct SessionOptions { void SetIntraOpNumThreads(int) {} };
struct RunOptions {};
struct MemoryInfo { static MemoryInfo CreateCpu(int, int) { return {}; } };
struct Value {
  std::vector<double> numbers;
  template <class T>
  static Value CreateTensor(MemoryInfo&, T* data, size_t size, const int64_t*, size_t) {
    return {std::vector<double>(data, data + size)};
  }
  template <class T> const T* GetTensorData() const { static T none[100] = {}; return none; }
};
struct Session {
  Session(Env&, const char*, SessionOptions&) {}
  std::vector<Value> Run(
      RunOptions, const char**, Value* given, size_t count, const char**, size_t) {
    for (size_t i = 0; i < count; ++i)
      for (double each : given[i].numbers) std::fprintf(stderr, "%.9g ", each);
    return std::vector<Value>(count);
  }
};
}  // namespace Ort
"""
