import Glibc
import Testing

@testable import VMCore

/// Bytes of a range of guest memory that the host holds for it.
func residentBytes(_ memory: GuestMemory, at address: UInt64, count: UInt64) -> UInt64 {
    guard let bytes = memory.hostBytes(at: GuestAddress(address), count: count) else { return 0 }
    var resident = [UInt8](repeating: 0, count: Int(count) / 4096)
    guard mincore(bytes.baseAddress!, bytes.count, &resident) == 0 else { return 0 }
    return UInt64(resident.count { $0 & 1 != 0 }) * 4096
}

@Suite struct MemoryReleaseTests {
    private final class Writes: GuestMemoryObserver, @unchecked Sendable {
        var ranges: [Range<UInt64>] = []
        func memoryWritten(at address: GuestAddress, count: UInt64) {
            ranges.append(address.rawValue..<address.rawValue + count)
        }
    }

    private func touched(_ memory: GuestMemory, _ range: Range<UInt64>) throws {
        for address in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
            try memory.store(UInt8(0xA5), at: GuestAddress(address))
        }
    }

    private func withFile(pages: Int, _ body: (Int32) throws -> Void) throws {
        var name = Array("/tmp/windhover-release-XXXXXX".utf8CString)
        let file = mkstemp(&name)
        defer {
            close(file)
            unlink(name)
        }
        let bytes = [UInt8](repeating: 0x5A, count: pages * 4096)
        #expect(Glibc.write(file, bytes, bytes.count) == bytes.count)
        try body(file)
    }

    @Test(arguments: [HugePages.none, .transparent]) func wholePagesGoAndReadAsZero(pages: HugePages) throws {
        let memory = try GuestMemory(size: 8 << 20, hugePages: pages)
        try touched(memory, 0..<(8 << 20))
        #expect(residentBytes(memory, at: 0, count: 8 << 20) == 8 << 20)
        #expect(memory.release(at: GuestAddress(2 << 20), count: 4 << 20) == .init(released: 4 << 20, kept: 0))
        #expect(residentBytes(memory, at: 0, count: 8 << 20) == 4 << 20)
        #expect(try memory.read(at: GuestAddress(2 << 20), count: 4 << 20).allSatisfy { $0 == 0 })
        #expect(try memory.load(UInt8.self, at: GuestAddress((2 << 20) - 4096)) == 0xA5)
        #expect(try memory.load(UInt8.self, at: GuestAddress(6 << 20)) == 0xA5)
    }

    @Test func partsOfPagesStay() throws {
        let memory = try GuestMemory(size: 1 << 20)
        try touched(memory, 0..<(1 << 20))
        #expect(memory.release(at: GuestAddress(0x1001), count: 0x2FFE) == .init(released: 0x1000, kept: 0x1FFE))
        #expect(try [0x1000, 0x2000, 0x3000].map { try memory.load(UInt8.self, at: GuestAddress($0)) } == [0xA5, 0, 0xA5])
        #expect(memory.release(at: GuestAddress(0x5001), count: 0xFFF) == .init(released: 0, kept: 0xFFF))
        #expect(memory.release(at: GuestAddress(0x5000), count: 0) == .init())
    }

    @Test func whatIsNoMemoryIsPassedOver() throws {
        let memory = try GuestMemory(size: 1 << 20)
        for (address, count) in [(1 << 20, 1 << 20), (.max, .max), (.max, 1), (1 << 63, 1 << 63)] as [(UInt64, UInt64)] {
            #expect(memory.release(at: GuestAddress(address), count: count) == .init())
        }
        #expect(memory.release(at: GuestAddress(0xF_F000), count: .max) == .init(released: 0x1000, kept: 0))
        // Across the hole: both regions, and nothing between.
        let large = try GuestMemory(size: 4 << 30)
        try large.store(UInt8(1), at: GuestAddress((3 << 30) - 1))
        try large.store(UInt8(1), at: GuestAddress(4 << 30))
        #expect(large.release(at: GuestAddress((3 << 30) - 4096), count: (1 << 30) + 8192) == .init(released: 8192, kept: 0))
        #expect(try large.load(UInt8.self, at: GuestAddress((3 << 30) - 1)) == 0)
        #expect(try large.load(UInt8.self, at: GuestAddress(4 << 30)) == 0)
    }

    @Test func observersHearOfWhatChanged() throws {
        let memory = try GuestMemory(size: 1 << 20)
        let writes = Writes()
        memory.add(observer: writes)
        defer { memory.remove(observer: writes) }
        _ = memory.release(at: GuestAddress(0x2800), count: 0x3000)
        #expect(writes.ranges == [0x3000..<0x5000])
    }

    @Test func aMappedFileDoesNotComeBack() throws {
        try withFile(pages: 8) { file in
            let memory = try GuestMemory(size: 1 << 20)
            try memory.map(file: file, offset: 0, count: 8 * 4096, at: GuestAddress(0x8000))
            try touched(memory, 0x6000..<0xC000)
            #expect(memory.release(at: GuestAddress(0x6000), count: 0x4000) == .init(released: 0x4000, kept: 0))
            for page: UInt64 in [0x6000, 0x7000, 0x8000, 0x9000] {
                #expect(try memory.read(at: GuestAddress(page), count: 4096).allSatisfy { $0 == 0 })
            }
            #expect(try memory.load(UInt8.self, at: GuestAddress(0xA000)) == 0xA5)
            #expect(try memory.load(UInt8.self, at: GuestAddress(0xF000)) == 0x5A)
            // What was laid over is memory like any other, and may be given up again.
            try touched(memory, 0x8000..<0xA000)
            #expect(memory.release(at: GuestAddress(0x8000), count: 0x8000) == .init(released: 0x8000, kept: 0))
            #expect(residentBytes(memory, at: 0x8000, count: 0x8000) == 0)
            #expect(try memory.read(at: GuestAddress(0x8000), count: 0x8000).allSatisfy { $0 == 0 })
        }
    }

    /// A guest that gives up every second page of a file would take a mapping of the host's for each.
    @Test func aFileIsCutIntoSoManyPiecesAndNoMore() throws {
        let pages = 4 * GuestMemory.mostFileParts
        try withFile(pages: pages) { file in
            let memory = try GuestMemory(size: 16 << 20)
            try memory.map(file: file, offset: 0, count: UInt64(pages) * 4096, at: GuestAddress(0))
            var released: UInt64 = 0
            for page in stride(from: 1, to: pages, by: 2) {
                released += memory.release(at: GuestAddress(UInt64(page) * 4096), count: 4096).released
            }
            #expect(memory.fileParts.withLock { $0.ranges.count } == GuestMemory.mostFileParts)
            // The last page leaves one piece, not two: it may always go.
            #expect(released == UInt64(GuestMemory.mostFileParts) * 4096)
            // All of it at once makes no pieces.
            #expect(memory.release(at: GuestAddress(0), count: 16 << 20).released == 16 << 20)
            #expect(memory.fileParts.withLock { $0.ranges.isEmpty })
            #expect(try memory.read(at: GuestAddress(0), count: pages * 4096).allSatisfy { $0 == 0 })
        }
    }

    @Test func rangesAreWhatAMapOfBitsSays() {
        var random: UInt64 = 1
        func below(_ bound: UInt64) -> UInt64 {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (random >> 33) % bound
        }
        var ranges = AddressRanges()
        var bits = [Bool](repeating: false, count: 64)
        for _ in 0..<3000 {
            let first = below(64)
            let range = first..<min(64, first + below(12))
            let isInsert = below(2) == 0
            if isInsert { ranges.insert(range) } else { ranges.remove(range) }
            for bit in range { bits[Int(bit)] = isInsert }
            var found = [Bool](repeating: false, count: 64)
            for range in ranges.ranges { for bit in range { found[Int(bit)] = true } }
            #expect(found == bits)
            for (one, next) in zip(ranges.ranges, ranges.ranges.dropFirst()) { #expect(one.upperBound < next.lowerBound) }
            for address: UInt64 in 0..<64 {
                #expect(ranges.first(endingAfter: address) == ranges.ranges.first { $0.upperBound > address })
            }
        }
        #expect(ranges.first(endingAfter: .max) == nil)
    }
}
