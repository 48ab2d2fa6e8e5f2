#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
internal import Synchronization

/// What went wrong with guest memory: at making it, or at an access the guest (or a file) asked for.
public enum GuestMemoryError: Error, Hashable {
    /// A size of zero, one that is not a whole number of pages, or one past what can be addressed.
    case badSize(UInt64)
    /// The host did not give the memory.
    case unavailable(bytes: UInt64, errno: Int32)
    /// The host's pool of 2 MiB pages is too small.
    case noHugePages(bytes: UInt64)
    /// `count` bytes at `address` are not all in one region.
    case outOfRange(address: GuestAddress, count: UInt64)
    /// A file could not be mapped over guest memory.
    case mapFailed(address: GuestAddress, count: UInt64, errno: Int32)
}

extension GuestMemoryError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .badSize(let size):
            size % (2 << 20) == 0
                ? "guest memory of \(size) bytes is more than a guest can address"
                : "guest memory of \(size) bytes: give a multiple of 4 KiB, from 1 MiB up, or of 2 MiB with reserved huge pages"
        case .unavailable(let bytes, let code):
            unsafe "the host did not give \(bytes >> 20) MiB for the guest: \(String(cString: strerror(code)))"
        case .noHugePages(let bytes):
            "the host has not set aside \(bytes >> 21) huge pages of 2 MiB for the guest: "
                + "do so with `sudo sysctl vm.nr_hugepages=\(bytes >> 21)`, or use transparent ones"
        case .outOfRange(let address, let count):
            "\(count) bytes at \(address) are outside guest memory"
        case .mapFailed(let address, let count, let code):
            unsafe "cannot map \(count) bytes of a file at \(address): \(String(cString: strerror(code)))"
        }
    }
}

/// How the host backs guest memory.
public enum HugePages: String, Hashable, Sendable, CaseIterable {
    /// 4 KiB pages, and what the host's own setting makes of them.
    case none
    /// Advise the host to use transparent huge pages.
    case transparent
    /// 2 MiB pages from the host's reserved pool; fails where the pool is too small.
    case reserved
}

/// Who hears of what the monitor itself writes into guest memory: an engine that keeps copies of it, such as decoded code.
public protocol GuestMemoryObserver: AnyObject, Sendable {
    /// Called after `count` bytes at `address` were written, on the writer's thread, with whatever locks it holds: it must
    /// not wait for a vCPU. The bytes are all in one region, and are visible before anything that the call reads.
    func memoryWritten(at address: GuestAddress, count: UInt64)
}

/// The guest's RAM: regions of host memory at guest physical addresses.
///
/// Below 4 GiB a hole is left for devices; what does not fit under it continues at 4 GiB.
/// The host commits a page only when it is first touched.
///
/// Every access is bounds-checked and none traps. The guest's vCPUs write the same bytes at any time: a value
/// read twice may differ, so read once and check what was read.
///
/// What is written through it is told to the observers; who writes through `hostBytes` tells them with `written`.
@safe public final class GuestMemory: Sendable {
    /// One contiguous run of RAM.
    @safe public struct Region: Sendable {
        /// Guest physical address of the first byte.
        public let base: GuestAddress
        /// Bytes; a multiple of the page size.
        public let count: UInt64
        /// Host address of the first byte. Lives as long as the `GuestMemory`.
        public nonisolated(unsafe) let host: UnsafeMutableRawPointer

        /// The last byte's address: inclusive, so that no sum can overflow.
        public var last: GuestAddress { GuestAddress(base.rawValue &+ (count &- 1)) }
    }

    /// Where the hole for devices begins: RAM below never reaches further than this.
    public static let holeStart = GuestAddress(0xC000_0000)
    /// Where RAM continues above the hole.
    public static let holeEnd = GuestAddress(0x1_0000_0000)
    /// The page size that regions are multiples of.
    public static let pageSize: UInt64 = 4096
    private static let hugePageSize = 2 << 20

    public let regions: [Region]
    /// Bytes in all regions together.
    public let size: UInt64
    let hugePages: HugePages
    /// Where files lie under the guest's memory.
    let fileParts = Mutex(AddressRanges())
    private nonisolated(unsafe) let reservation: UnsafeMutableRawPointer
    private let observers = Mutex<[any GuestMemoryObserver]>([])
    private let observerCount = Atomic<Int>(0)

    /// Reserves `size` bytes of guest RAM.
    ///
    /// - Parameter size: bytes; at least 1 MiB, at most 1 TiB, a multiple of 4 KiB (2 MiB with reserved huge pages).
    /// - Throws: `badSize`, or `unavailable` where the host refuses the address space or the huge pages.
    /// - Complexity: constant; no page is touched.
    public init(size: UInt64, hugePages: HugePages = .none) throws(GuestMemoryError) {
        let unit: UInt64 = hugePages == .reserved ? 2 << 20 : Self.pageSize
        guard size >= 1 << 20, size <= 1 << 40, size % unit == 0 else { throw .badSize(size) }
        var flags = MAP_PRIVATE | MAP_ANONYMOUS
        // MAP_HUGETLB | MAP_HUGE_2MB: a macro of shifts, which Swift does not import. Without MAP_NORESERVE: a pool that is
        // too small must fail here, not as a bus error at the page that is not there.
        flags |= hugePages == .reserved ? 0x40000 | (21 << 26) : MAP_NORESERVE
        // Host and guest addresses are to be the same within 2 MiB: else no page of the guest's can be a huge one of the host's,
        // and each 4 KiB is a fault and an entry of its own in the nested tables. Reserved pages are aligned as it is.
        let slack = hugePages == .reserved ? 0 : Self.hugePageSize
        let start = unsafe mmap(nil, Int(size) + slack, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED else {
            throw hugePages == .reserved ? .noHugePages(bytes: size) : .unavailable(bytes: size, errno: errno)
        }
        let skipped = -Int(bitPattern: start) & (Self.hugePageSize - 1)
        let mapped = unsafe start + skipped
        if slack > 0 {
            if skipped > 0 { _ = unsafe munmap(start, skipped) }
            _ = unsafe munmap(mapped + Int(size), slack - skipped)
        }
        if hugePages == .transparent { _ = unsafe madvise(mapped, Int(size), MADV_HUGEPAGE) }
        // A core dump of the monitor must not carry the guest's secrets.
        _ = unsafe madvise(mapped, Int(size), MADV_DONTDUMP)
        unsafe Self.keepFromChildren(mapped, Int(size))
        unsafe reservation = mapped
        self.size = size
        self.hugePages = hugePages
        let low = min(size, Self.holeStart.rawValue)
        var regions = unsafe [Region(base: GuestAddress(0), count: low, host: mapped)]
        if size > low {
            unsafe regions.append(Region(base: Self.holeEnd, count: size - low, host: mapped + Int(low)))
        }
        self.regions = regions
    }

    deinit { _ = unsafe munmap(reservation, Int(size)) }

    /// A process that is forked while a guest runs (the one that gives the terminal back) is not to have its memory: each page that the
    /// guest writes to from then on would be copied first, and both kept.
    static func keepFromChildren(_ start: UnsafeMutableRawPointer?, _ count: Int) { _ = unsafe madvise(start, count, MADV_DONTFORK) }

    /// The host bytes behind `count` guest bytes at `address`.
    ///
    /// - Returns: the bytes, which live as long as this object; nil unless all of them are in one region.
    /// - Complexity: O(regions), of which there are at most two.
    @inline(__always)
    public func hostBytes(at address: GuestAddress, count: UInt64) -> UnsafeMutableRawBufferPointer? {
        for region in regions {
            let (offset, before) = address.rawValue.subtractingReportingOverflow(region.base.rawValue)
            if before || offset >= region.count { continue }
            guard count <= region.count &- offset else { return nil }
            return unsafe UnsafeMutableRawBufferPointer(
                start: region.host + Int(truncatingIfNeeded: offset), count: Int(truncatingIfNeeded: count))
        }
        return nil
    }

    /// Adds an observer, kept alive until it is removed.
    public func add(observer: any GuestMemoryObserver) {
        observers.withLock { $0.append(observer) }
        observerCount.wrappingAdd(1, ordering: .sequentiallyConsistent)
    }

    public func remove(observer: any GuestMemoryObserver) {
        let removed = observers.withLock { observers in
            let before = observers.count
            observers.removeAll { $0 === observer }
            return before - observers.count
        }
        observerCount.wrappingSubtract(removed, ordering: .sequentiallyConsistent)
    }

    /// To be called after bytes were written through `hostBytes`. Any thread.
    @inline(__always)
    public func written(at address: GuestAddress, count: UInt64) {
        if observerCount.load(ordering: .relaxed) != 0 { tell(address, count) }
    }

    @inline(never)
    private func tell(_ address: GuestAddress, _ count: UInt64) {
        guard count > 0 else { return }
        // The bytes first, then the look at what they may have changed: an engine marks first and reads then.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        for observer in observers.withLock({ $0 }) { observer.memoryWritten(at: address, count: count) }
    }

    private func checked(
        _ address: GuestAddress, _ count: UInt64
    ) throws(GuestMemoryError) -> UnsafeMutableRawBufferPointer {
        guard let bytes = unsafe hostBytes(at: address, count: count) else {
            throw .outOfRange(address: address, count: count)
        }
        return unsafe bytes
    }

    /// Reads one little-endian integer or plain structure. The address need not be aligned.
    public func load<Value: BitwiseCopyable>(
        _ type: Value.Type, at address: GuestAddress
    ) throws(GuestMemoryError) -> Value {
        let bytes = unsafe try checked(address, UInt64(MemoryLayout<Value>.size))
        return unsafe bytes.loadUnaligned(as: type)
    }

    /// Writes one integer or plain structure. The address need not be aligned.
    public func store<Value: BitwiseCopyable>(
        _ value: Value, at address: GuestAddress
    ) throws(GuestMemoryError) {
        let bytes = unsafe try checked(address, UInt64(MemoryLayout<Value>.size))
        unsafe bytes.storeBytes(of: value, as: Value.self)
        written(at: address, count: UInt64(MemoryLayout<Value>.size))
    }

    /// Copies host bytes into the guest.
    public func write(_ source: UnsafeRawBufferPointer, at address: GuestAddress) throws(GuestMemoryError) {
        let bytes = unsafe try checked(address, UInt64(source.count))
        if source.count > 0 { unsafe bytes.copyMemory(from: source) }
        written(at: address, count: UInt64(source.count))
    }

    /// Copies host bytes into the guest.
    public func write(_ source: [UInt8], at address: GuestAddress) throws(GuestMemoryError) {
        let bytes = unsafe try checked(address, UInt64(source.count))
        unsafe source.withUnsafeBytes { source in if source.count > 0 { unsafe bytes.copyMemory(from: source) } }
        written(at: address, count: UInt64(source.count))
    }

    /// Copies guest bytes out.
    public func read(at address: GuestAddress, into target: UnsafeMutableRawBufferPointer) throws(GuestMemoryError) {
        let bytes = unsafe try checked(address, UInt64(target.count))
        if target.count > 0 { unsafe target.copyMemory(from: UnsafeRawBufferPointer(bytes)) }
    }

    /// Copies `count` guest bytes out.
    public func read(at address: GuestAddress, count: Int) throws(GuestMemoryError) -> [UInt8] {
        guard count >= 0 else { throw .outOfRange(address: address, count: UInt64(bitPattern: Int64(count))) }
        return unsafe [UInt8](try checked(address, UInt64(count)))
    }

    /// Sets `count` guest bytes to zero.
    public func zero(at address: GuestAddress, count: UInt64) throws(GuestMemoryError) {
        let bytes = unsafe try checked(address, count)
        if let start = bytes.baseAddress, count > 0 { unsafe _ = memset(start, 0, bytes.count) }
        written(at: address, count: count)
    }

    /// Lays a file's pages over guest memory, copy-on-write: the guest sees the file's bytes, and what it
    /// writes stays its own. Nothing is read until it is touched.
    ///
    /// - Parameters:
    ///   - descriptor: an open, readable file; it may be closed afterwards.
    ///   - offset: where in the file to start; a multiple of 4 KiB.
    ///   - count: bytes; rounded up to pages. The file must reach that far: a page past its end is
    ///     a bus error at first touch.
    ///   - address: a multiple of 4 KiB.
    /// - Throws: `outOfRange`, or `mapFailed` with the host's reason.
    public func map(
        file descriptor: Int32, offset: UInt64, count: UInt64, at address: GuestAddress
    ) throws(GuestMemoryError) {
        let (padded, overflow) = count.addingReportingOverflow(Self.pageSize - 1)
        let rounded = padded & ~(Self.pageSize - 1)
        guard !overflow, let signedOffset = Int(exactly: offset) else {
            throw .outOfRange(address: address, count: count)
        }
        let bytes = unsafe try checked(address, rounded)
        guard rounded > 0 else { return }
        let failure = fileParts.withLock { parts -> Int32 in
            let mapped = unsafe mmap(
                bytes.baseAddress, bytes.count, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, descriptor, signedOffset)
            guard unsafe mapped != MAP_FAILED else { return errno }
            _ = unsafe madvise(mapped, bytes.count, MADV_DONTDUMP)
            unsafe Self.keepFromChildren(mapped, bytes.count)
            parts.insert(address.rawValue..<(address.rawValue &+ rounded))
            return 0
        }
        guard failure == 0 else { throw .mapFailed(address: address, count: count, errno: failure) }
        written(at: address, count: rounded)
    }
}
