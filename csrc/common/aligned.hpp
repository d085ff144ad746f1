// Vectors that begin at a cache line: a wide load across two lines costs two.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace deepssim {

template <class T>
struct LineAllocator {
    using value_type = T;
    static constexpr std::align_val_t kLine{64};

    LineAllocator() = default;
    template <class U>
    LineAllocator(const LineAllocator<U>&) {}
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
    void deallocate(T* memory, std::size_t) { ::operator delete(memory, kLine); }
    template <class U>
    bool operator==(const LineAllocator<U>&) const {
        return true;
    }
};

template <class T>
using AlignedVector = std::vector<T, LineAllocator<T>>;
using AlignedFloats = AlignedVector<float>;

}  // namespace deepssim
