// The structs of DLPack 1.x, as https://dmlc.github.io/dlpack/latest/ lays them down: the binary interface by which
// libraries lend each other arrays.
#pragma once

#include <cstdint>

namespace sepconv::bind::dlpack {

struct Device {
  std::int32_t type;
  std::int32_t id;
};
constexpr std::int32_t kCpu = 1, kCudaHost = 3, kRocmHost = 11;

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
constexpr std::uint8_t kFloat = 2, kBfloat = 4;

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: the last axis is the innermost, without gaps
  std::uint64_t byte_offset;
};

// In capsules named "dltensor", which producers before 1.0 make.
struct LegacyTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(LegacyTensor*);  // may be null
};

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};
constexpr Version kVersion{1, 1};
constexpr std::uint64_t kReadOnly = 1, kCopied = 2;  // flags

// In capsules named "dltensor_versioned". Of another major version only what comes before flags may be touched.
struct VersionedTensor {
  Version version;
  void* context;
  void (*deleter)(VersionedTensor*);  // may be null
  std::uint64_t flags;
  Tensor tensor;
};

// A capsule that was consumed has "used_" before its name.
constexpr const char* kLegacyName = "dltensor";
constexpr const char* kLegacyUsed = "used_dltensor";
constexpr const char* kVersionedName = "dltensor_versioned";
constexpr const char* kVersionedUsed = "used_dltensor_versioned";

}  // namespace sepconv::bind::dlpack
