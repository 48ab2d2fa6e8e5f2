#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
internal import Synchronization

extension GuestMemory {
    /// What became of a range of memory that the guest gave up.
    public struct Release: Hashable, Sendable, BitwiseCopyable {
        /// Bytes that the host has back. They read as zero, and cost nothing until they are next written.
        public var released: UInt64 = 0
        /// Bytes of guest memory that stay as they are.
        public var kept: UInt64 = 0
    }

    /// Most pieces of mapped files between pages that were given up. Each costs the host a mapping, of which a process has
    /// 65,530: a guest that gave up every second page of a large initrd would else take them all.
    static let mostFileParts = 512

    /// Gives the host back what the guest does not need any more.
    ///
    /// Each page ends as zeros or as it was, never as the bytes of the file that lay under it: a guest that clears
    /// what it frees goes by that.
    ///
    /// Kept as they are: pages not wholly in the range; reserved huge pages, because what the host has set aside for this guest
    /// is of use to nobody else, and a guest that could lose its claim to a page would die of a bus error at its next touch;
    /// and pages of mapped files, where they lie scattered.
    ///
    /// - Parameters:
    ///   - address: anything; whatever of the range is not guest memory is in neither count of the result.
    ///   - count: bytes. The call takes about 0.1 microseconds for each page that the guest had touched.
    public func release(at address: GuestAddress, count: UInt64) -> Release {
        var result = Release()
        let (sum, overflow) = address.rawValue.addingReportingOverflow(count)
        let end = overflow ? UInt64.max : sum
        for region in regions {
            let start = max(address.rawValue, region.base.rawValue)
            let stop = min(end, region.base.rawValue &+ region.count)
            guard start < stop else { continue }
            let pages = (start &+ (Self.pageSize &- 1)) & ~(Self.pageSize &- 1)
            let pagesEnd = stop & ~(Self.pageSize &- 1)
            let released = pages < pagesEnd && hugePages != .reserved ? releasePages(pages..<pagesEnd, of: region) : 0
            result.released &+= released
            result.kept &+= (stop &- start) &- released
        }
        return result
    }

    /// - Parameter range: whole pages of the region.
    /// - Returns: how many bytes went.
    private func releasePages(_ range: Range<UInt64>, of region: Region) -> UInt64 {
        var released: UInt64 = 0
        fileParts.withLock { parts in
            var at = range.lowerBound
            while at < range.upperBound {
                let file = parts.first(endingAfter: at)
                let isFile = file.map { $0.contains(at) } ?? false
                let end = min(range.upperBound, isFile ? file?.upperBound ?? .max : file?.lowerBound ?? .max)
                let host = unsafe region.host + Int(at &- region.base.rawValue)
                if isFile {
                    if let file, unsafe cover(at..<end, of: file, host: host, &parts) { released &+= end &- at }
                } else if unsafe madvise(host, Int(end &- at), MADV_DONTNEED) == 0 {
                    released &+= end &- at
                }
                at = end
            }
        }
        written(at: GuestAddress(range.lowerBound), count: range.upperBound &- range.lowerBound)
        return released
    }

    /// Lays fresh memory over pages of a mapped file.
    /// - Returns: false where they stay.
    private func cover(
        _ range: Range<UInt64>, of file: Range<UInt64>, host: UnsafeMutableRawPointer, _ parts: inout AddressRanges
    ) -> Bool {
        let splits = file.lowerBound < range.lowerBound && range.upperBound < file.upperBound
        guard !splits || parts.count < Self.mostFileParts else { return false }
        let count = Int(range.upperBound &- range.lowerBound)
        let mapped = unsafe mmap(
            host, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0)
        guard unsafe mapped != MAP_FAILED else { return false }
        if hugePages == .transparent { _ = unsafe madvise(mapped, count, MADV_HUGEPAGE) }
        _ = unsafe madvise(mapped, count, MADV_DONTDUMP)
        unsafe Self.keepFromChildren(mapped, count)
        parts.remove(range)
        return true
    }
}
