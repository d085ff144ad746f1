#include "buffer.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace deepssim {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kLargePage = std::size_t{2} << 20;

}  // namespace

void FreeBuffer::operator()(std::byte* memory) const {
    if (mapping_ != nullptr) {
        ::munmap(mapping_, size_);
    } else {
        ::operator delete[](memory, std::align_val_t{kLine});
    }
}

std::size_t buffer_bytes(std::size_t bytes) { return bytes < kLargePage ? bytes : bytes + kLargePage; }

Buffer make_buffer(std::size_t bytes) {
    if (bytes < kLargePage) {
        void* memory = ::operator new[](std::max<std::size_t>(bytes, 1), std::align_val_t{kLine});
        return Buffer(static_cast<std::byte*>(memory), FreeBuffer());
    }
    const std::size_t size = buffer_bytes(bytes);
    void* mapping = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    void* first = mapping;
    std::size_t room = size;
    std::align(kLargePage, bytes, first, room);
    // Advice only: where it is not taken the memory works all the same.
    ::madvise(first, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
    return Buffer(static_cast<std::byte*>(first), FreeBuffer(mapping, size));
}

}  // namespace deepssim
