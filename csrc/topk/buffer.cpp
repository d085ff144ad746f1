#include "buffer.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace deepssim {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kLargePage = std::size_t{2} << 20;
constexpr std::size_t kLarge = 4 * kLargePage;

}  // namespace

// One alignment for all, so that freeing needs no size.
void FreeBuffer::operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kLine}); }

std::size_t buffer_bytes(std::size_t bytes) { return bytes < kLarge ? bytes : bytes + kLargePage; }

Buffer make_buffer(std::size_t bytes) {
    Buffer buffer(static_cast<std::byte*>(::operator new[](std::max<std::size_t>(bytes, 1), std::align_val_t{kLine})));
    if (bytes >= kLarge) {
        void* first = buffer.get();
        std::size_t room = bytes;
        // Advice only: where it is not taken the memory works all the same.
        if (std::align(kLargePage, kLargePage, first, room) != nullptr) {
            ::madvise(first, room / kLargePage * kLargePage, MADV_HUGEPAGE);
        }
    }
    return buffer;
}

}  // namespace deepssim
