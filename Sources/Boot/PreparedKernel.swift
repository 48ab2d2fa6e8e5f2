import CCompression
import VMCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A kernel laid out in a file as it lies in memory, so that starting it is a matter of mapping.
///
/// A page of header, then runs of pages, each at a page boundary of the file and of the guest. Loading maps the runs
/// over guest memory, copy-on-write: nothing is unpacked, nothing is copied, and guests that run the same kernel share the
/// host's page cache. What no run covers is zero, as fresh guest memory is.
///
///     0     "WNDHVRK1"
///     8     u32 CRC-32 of the header page, taken with this field zero
///     12    u32 flags: 1 the kernel is Linux, 2 there is a 64-bit entry, 4 there is a PVH entry
///     16    u64 bytes in the file
///     24    u64 64-bit entry, physical
///     32    u64 PVH entry, physical
///     40    u32 runs, u32 extents
///     64    the setup header from 0x1F1 to 0x28F
///     256   runs, at most 64: u64 guest address, u64 file offset, u64 bytes; all multiples of 4 KiB
///     1792  extents, at most 64: u64 guest address, u64 bytes: the memory that is the kernel's
///
/// The file is a cache of this program's own, yet no more trusted than a kernel: all of the header is checked. The
/// pages are not: a check would read them all.
public enum PreparedKernel {
    private static let magic: StaticString = "WNDHVRK1"
    private static let page = GuestMemory.pageSize
    private static let runOffset = 256
    private static let extentOffset = 1792
    private static let listLimit = 64

    /// Guest pages and where in the file they are.
    private struct Run {
        var address: UInt64
        var fileOffset: UInt64
        var count: UInt64
    }

    static func isPrepared(_ image: ImageBytes) -> Bool { image.holds(magic, at: 0) }

    static func isLinux(_ image: ImageBytes) -> Bool {
        image.integer(UInt32.self, at: 12).map { $0 & 1 != 0 } ?? false
    }

    // MARK: Writing

    /// Unpacks a kernel and writes it in this form.
    ///
    /// The file appears under its name complete or not at all.
    /// - Parameters:
    ///   - kernel: a bzImage with a payload that the host can unpack, or an ELF kernel.
    ///   - path: the file to write; one that is there is replaced.
    ///   - limit: the most bytes to unpack to.
    /// - Throws: what loading the kernel would throw, `unsupported` for one that only unpacks itself, `cannotWrite`.
    public static func write(
        _ kernel: ImageBytes, to path: String, limit: UInt64 = 1 << 30
    ) throws(BootError) {
        let header: SetupHeader
        let elf: ELF
        switch try ImageKind(kernel) {
        case .bzImage:
            let image = try BzImage(kernel)
            guard let unpacked = try image.unpack(limit: limit) else {
                throw .unsupported(image: kernel.name, problem: "it has no payload that the host can unpack")
            }
            (header, elf) = (image.header, unpacked)
        case .elf:
            (header, elf) = (.forVmlinux, try ELF(kernel))
        default:
            throw .unsupported(image: kernel.name, problem: "only a bzImage or an ELF kernel can be prepared")
        }
        let extents = elf.segments.map { (address: $0.physical, count: $0.memoryCount) } + header.extent(beyond: elf)
        let runs = layOut(elf)
        guard runs.count <= listLimit, extents.count <= listLimit else {
            throw .unsupported(image: kernel.name, problem: "it has more than \(listLimit) segments")
        }
        let entries = try elf.entries()
        let size = runs.last.map { $0.fileOffset + $0.count } ?? page

        var bytes = LittleEndianBytes(count: Int(page))
        bytes.store(Array("\(magic)".utf8), at: 0)
        bytes.store(
            (entries.isLinux ? 1 : 0) | (entries.long != nil ? 2 : 0) | (entries.pvh != nil ? 4 : 0) as UInt32, at: 12)
        bytes.store(size, at: 16)
        bytes.store(entries.long ?? 0, at: 24)
        bytes.store(UInt64(entries.pvh ?? 0), at: 32)
        bytes.store(UInt32(runs.count), at: 40)
        bytes.store(UInt32(extents.count), at: 44)
        bytes.store(header.bytes, at: 64)
        for (index, run) in runs.enumerated() {
            bytes.store(run.address, at: runOffset + index * 24)
            bytes.store(run.fileOffset, at: runOffset + index * 24 + 8)
            bytes.store(run.count, at: runOffset + index * 24 + 16)
        }
        for (index, extent) in extents.enumerated() {
            bytes.store(extent.address, at: extentOffset + index * 16)
            bytes.store(extent.count, at: extentOffset + index * 16 + 8)
        }
        try writeFile(path, header: sealed(bytes.bytes), size: size, runs: runs, elf: elf)
    }

    /// The pages that the segments' bytes touch, in runs, ascending. Segments that share or adjoin pages share a run.
    private static func layOut(_ elf: ELF) -> [Run] {
        var runs: [Run] = []
        for segment in elf.segments.filter({ $0.fileCount > 0 }).sorted(by: { $0.physical < $1.physical }) {
            let first = segment.physical & ~(page - 1)
            let next = (segment.physical + segment.fileCount + page - 1) & ~(page - 1)
            if let last = runs.indices.last, first <= runs[last].address + runs[last].count {
                runs[last].count = max(runs[last].count, next - runs[last].address)
            } else {
                runs.append(Run(address: first, fileOffset: 0, count: next - first))
            }
        }
        var offset = page
        for index in runs.indices {
            runs[index].fileOffset = offset
            offset += runs[index].count
        }
        return runs
    }

    private static func writeFile(
        _ path: String, header: [UInt8], size: UInt64, runs: [Run], elf: ELF
    ) throws(BootError) {
        // A name of its own: several processes may prepare the same kernel at once.
        var temporary = Array("\(path).XXXXXX".utf8CString)
        let descriptor = unsafe mkstemp(&temporary)
        guard descriptor >= 0 else { throw .cannotWrite(path: path, errno: errno) }
        var failure: Int32 = 0
        // Open to readers as other files of a cache; the descriptor is closed in any child.
        if fchmod(descriptor, 0o644) != 0 || fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0 { failure = errno }
        // The file's length makes what is not written zeros.
        if failure == 0, ftruncate(descriptor, Int(truncatingIfNeeded: size)) != 0 { failure = errno }
        if failure == 0 {
            failure = unsafe header.withUnsafeBytes { unsafe writeAll($0, to: descriptor, at: 0) }
        }
        for segment in elf.segments where failure == 0 && segment.fileCount > 0 {
            guard let bytes = elf.image.slice(at: segment.fileOffset, count: segment.fileCount),
                let run = runs.last(where: { $0.address <= segment.physical })
            else { continue }
            failure = unsafe writeAll(
                bytes.unsafeBytes, to: descriptor, at: run.fileOffset + (segment.physical - run.address))
        }
        if failure == 0, fsync(descriptor) != 0 { failure = errno }
        close(descriptor)
        if failure == 0, unsafe rename(temporary, path) != 0 { failure = errno }
        guard failure == 0 else {
            _ = unsafe unlink(temporary)
            throw .cannotWrite(path: path, errno: failure)
        }
    }

    /// - Returns: 0, or the error number.
    private static func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, at offset: UInt64) -> Int32 {
        var done = 0
        while done < bytes.count {
            let count = unsafe pwrite(
                descriptor, bytes.baseAddress?.advanced(by: done), bytes.count - done,
                Int(truncatingIfNeeded: offset) + done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return count == 0 ? EIO : errno }
            done += count
        }
        return 0
    }

    /// A header page, or a file that begins with one, with the right checksum put in.
    static func sealed(_ file: [UInt8]) -> [UInt8] {
        var bytes = LittleEndianBytes()
        bytes.append(file)
        bytes.store(UInt32(0), at: 8)
        bytes.store(checksum(Array(bytes.bytes.prefix(Int(page)))), at: 8)
        return bytes.bytes
    }

    private static func checksum(_ header: [UInt8]) -> UInt32 {
        UInt32(truncatingIfNeeded: unsafe crc32(0, header, UInt32(truncatingIfNeeded: header.count)))
    }

    // MARK: Loading

    /// Maps a prepared kernel over guest memory.
    static func load(
        _ image: ImageBytes, plan: inout MemoryPlan, configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        func malformed(_ problem: String) -> BootError { .malformed(image: image.name, problem: problem) }
        let part = try image.part(at: 0, count: page)
        var header = LittleEndianBytes(count: 0)
        header.append(part.array)
        let sum = try part.field(UInt32.self, at: 8)
        header.store(UInt32(0), at: 8)
        guard checksum(header.bytes) == sum else { throw malformed("its header's checksum is wrong; prepare it again") }
        let size = try part.field(UInt64.self, at: 16)
        guard size <= image.count else { throw .truncated(image: image.name, needs: size, has: image.count) }
        let runCount = Int(try part.field(UInt32.self, at: 40))
        let extentCount = Int(try part.field(UInt32.self, at: 44))
        guard runCount <= listLimit, extentCount <= listLimit else { throw malformed("its lists are too long") }

        try plan.claimTables()
        var extents: [(first: UInt64, last: UInt64)] = []
        for index in 0..<extentCount {
            let address = try part.field(UInt64.self, at: UInt64(extentOffset + index * 16))
            let count = try part.field(UInt64.self, at: UInt64(extentOffset + index * 16 + 8))
            guard count > 0 else { throw malformed("an extent of 0 bytes") }
            try plan.claim("the kernel", at: GuestAddress(address), count: count)
            extents.append((address, address + (count - 1)))
        }
        var end: UInt64 = 0
        for index in 0..<runCount {
            let offset = UInt64(runOffset + index * 24)
            let run = Run(
                address: try part.field(UInt64.self, at: offset),
                fileOffset: try part.field(UInt64.self, at: offset + 8),
                count: try part.field(UInt64.self, at: offset + 16))
            let (next, overflow) = run.address.addingReportingOverflow(run.count)
            guard run.count > 0, !overflow, (run.address | run.fileOffset | run.count) % page == 0 else {
                throw malformed("run \(index) is not made of pages")
            }
            // Ascending, above the tables, and clear of the BIOS area: the pages around an extent are overwritten too.
            guard run.address >= max(end, BootLayout.highMemory.rawValue) else {
                throw malformed("run \(index) overlaps what lies before it")
            }
            end = next
            guard extents.contains(where: { $0.first < next && run.address <= $0.last }) else {
                throw malformed("run \(index) is none of the kernel's memory")
            }
            try image.part(at: run.fileOffset, count: run.count).place(in: plan.memory, at: GuestAddress(run.address))
        }

        let flags = try part.field(UInt32.self, at: 12)
        let long = try part.field(UInt64.self, at: 24)
        let pvh = try part.field(UInt64.self, at: 32)
        for entry in (flags & 2 != 0 ? [long] : []) + (flags & 4 != 0 ? [pvh] : []) {
            guard extents.contains(where: { $0.first <= entry && entry <= $0.last }), entry <= UInt64(UInt32.max) else {
                throw malformed("its entry \(GuestAddress(entry)) is none of the kernel's memory")
            }
        }
        let entries = KernelEntries(
            long: flags & 2 != 0 ? long : nil, pvh: flags & 4 != 0 ? UInt32(truncatingIfNeeded: pvh) : nil,
            isLinux: flags & 1 != 0)
        let setup = SetupHeader(prefix: try part.part(at: 64, count: UInt64(SetupHeader.end - SetupHeader.start)).array)
        return try entries.finish(image: image, header: setup, plan: &plan, configuration: configuration)
    }
}

extension SetupHeader {
    /// The memory the kernel uses beyond its segments before it reads the memory map; at most one range.
    func extent(beyond elf: ELF) -> [(address: UInt64, count: UInt64)] {
        let end = elf.segments.map { $0.physical + $0.memoryCount }.max() ?? 0
        let (needed, overflow) = preferredAddress.addingReportingOverflow(initSize)
        return !overflow && needed > end ? [(end, needed - end)] : []
    }
}
