#include "backend/cuda/errors.h"

#include "base/error.h"

namespace llorch::cuda {

bool is_device_lost(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorDevicesUnavailable:
    case cudaErrorUnknown:
      return true;
    default:  // CUDA has more than a hundred
      return false;
  }
}

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  const std::string text = fmt::format("{}: {} ({})", doing, cudaGetErrorName(error), cudaGetErrorString(error));
  cudaGetLastError();  // it is told once
  if (is_device_lost(error)) throw CodedError(ErrorCode::kDeviceLost, text);
  if (error == cudaErrorMemoryAllocation) throw CodedError(ErrorCode::kVramOom, text);
  throw Error(text);
}

void fail_too_wide(int columns) {
  fail("a product over {} columns does not fit into the shared memory of a multiprocessor", columns);
}

}  // namespace llorch::cuda
