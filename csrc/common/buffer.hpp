// Memory for rows and images: aligned to cache lines; where it is large, in large pages and given back at once.
#pragma once

#include <cstddef>
#include <memory>

namespace deepssim {

class FreeBuffer {
   public:
    FreeBuffer() = default;
    FreeBuffer(void* mapping, std::size_t size) : mapping_(mapping), size_(size) {}
    void operator()(std::byte* memory) const;

   private:
    void* mapping_ = nullptr;  // null: from the heap
    std::size_t size_ = 0;
};
using Buffer = std::unique_ptr<std::byte[], FreeBuffer>;

// `bytes` of memory, not cleared. Rows of a base lie far apart: in pages of 4 KB each of them costs a walk through
// the page table, so large buffers ask for pages of 2 MB. They are mapped, not taken from the heap, which would
// keep the blocks of a base that streams by.
Buffer make_buffer(std::size_t bytes);

// What make_buffer takes.
std::size_t buffer_bytes(std::size_t bytes);

}  // namespace deepssim
