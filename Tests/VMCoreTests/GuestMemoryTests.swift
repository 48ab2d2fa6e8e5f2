import Glibc
import Testing
import VMCore

@Suite struct GuestMemoryTests {
    @Test func leavesTheHoleBelowFourGibibytes() throws {
        let memory = try GuestMemory(size: 4 << 30)
        #expect(memory.regions.count == 2)
        #expect(memory.regions[0].count == 3 << 30)
        #expect(memory.regions[1].base == GuestAddress(4 << 30))
        #expect(memory.regions[1].count == 1 << 30)
        #expect(throws: GuestMemoryError.self) { try memory.load(UInt8.self, at: GuestMemory.holeStart) }
        try memory.store(UInt64(7), at: GuestAddress((5 << 30) - 8))
        #expect(try memory.load(UInt64.self, at: GuestAddress((5 << 30) - 8)) == 7)
    }

    @Test func refusesWhatLeavesARegion() throws {
        let memory = try GuestMemory(size: 1 << 20)
        for address: UInt64 in [(1 << 20) - 7, 1 << 20, .max, .max - 7, 1 << 63] {
            #expect(throws: GuestMemoryError.outOfRange(address: GuestAddress(address), count: 8)) {
                try memory.load(UInt64.self, at: GuestAddress(address))
            }
        }
        #expect(throws: GuestMemoryError.self) { try memory.zero(at: GuestAddress(1), count: .max) }
        #expect(throws: GuestMemoryError.self) { try memory.read(at: GuestAddress(0), count: -1) }
        try memory.zero(at: GuestAddress(0), count: 1 << 20)
    }

    @Test(arguments: [0, 1, 4096, (1 << 20) + 1, 1 << 41, UInt64.max] as [UInt64])
    func refusesOddSizes(size: UInt64) {
        #expect(throws: GuestMemoryError.badSize(size)) { try GuestMemory(size: size) }
    }

    /// A pool of this size exists nowhere: the error comes at once, not as a bus error at the first touch.
    @Test func aPoolOfHugePagesThatIsTooSmallIsAnError() {
        #expect(throws: GuestMemoryError.noHugePages(bytes: 1 << 40)) {
            try GuestMemory(size: 1 << 40, hugePages: .reserved)
        }
    }

    /// Else no page of the guest's could be a huge page of the host's.
    @Test(arguments: [1 << 20, 3 << 20, 512 << 20, 5 << 30] as [UInt64]) func hostAddressesAreAlignedAsTheGuests(size: UInt64) throws {
        for _ in 0..<8 {
            let memory = try GuestMemory(size: size)
            for region in memory.regions {
                #expect(UInt64(UInt(bitPattern: region.host)) % (2 << 20) == region.base.rawValue % (2 << 20))
                // Its last byte is its own.
                try memory.store(UInt8(1), at: region.last)
            }
        }
    }

    /// Else a process that is forked while a guest runs would have each page that the guest writes to copied.
    @Test func childrenDoNotGetIt() throws {
        let memory = try GuestMemory(size: 5 << 30)
        let file = tmpfile()
        defer { fclose(file) }
        ftruncate(fileno(file), 8192)
        try memory.map(file: fileno(file), offset: 0, count: 8192, at: GuestAddress(0x10_0000))
        let maps = try text(of: "/proc/self/smaps")
        for address in [0x1000, 0x10_0000, 5 << 30] as [UInt64] {
            let host = UInt(bitPattern: try #require(memory.hostBytes(at: GuestAddress(address), count: 4096)?.baseAddress))
            #expect(flags(of: host, in: maps)?.contains("dc") == true, "\(address)")
        }
        // What was not asked for has not got it.
        let other = UInt(bitPattern: try #require(mmap(nil, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))
        #expect(flags(of: other, in: try text(of: "/proc/self/smaps"))?.contains("dc") == false)
    }

    private func text(of path: String) throws -> String {
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 { bytes += buffer[..<count] }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The words behind `VmFlags:` of the mapping with that address.
    private func flags(of address: UInt, in maps: String) -> [Substring]? {
        var isHere = false
        for line in maps.split(separator: "\n") {
            let range = line.prefix { $0 != " " }.split(separator: "-").map { UInt($0, radix: 16) }
            if range.count == 2, let low = range[0], let high = range[1] { isHere = low..<high ~= address }
            if isHere, line.hasPrefix("VmFlags:") { return line.split(separator: " ") }
        }
        return nil
    }

    @Test func commitsNothingBeforeItIsTouched() throws {
        let memory = try GuestMemory(size: 8 << 30)
        var resident = [UInt8](repeating: 1, count: 1 << 20)
        #expect(mincore(memory.regions[0].host, 4 << 30, &resident) == 0)
        #expect(resident.allSatisfy { $0 & 1 == 0 })
    }

    @Test func mapsAFileCopyOnWrite() throws {
        var name = Array("/tmp/windhover-map-XXXXXX".utf8CString)
        let file = mkstemp(&name)
        defer {
            close(file)
            unlink(name)
        }
        let bytes = [UInt8](repeating: 0x5A, count: 8192)
        #expect(Glibc.write(file, bytes, bytes.count) == bytes.count)
        let memory = try GuestMemory(size: 1 << 20)
        try memory.map(file: file, offset: 4096, count: 4096, at: GuestAddress(0x2000))
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x2FFF)) == 0x5A)
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x3000)) == 0)
        try memory.store(UInt8(1), at: GuestAddress(0x2000))
        var back: UInt8 = 0
        #expect(pread(file, &back, 1, 4096) == 1)
        #expect(back == 0x5A)
        #expect(throws: GuestMemoryError.self) {
            try memory.map(file: file, offset: 0, count: 4096, at: GuestAddress((1 << 20) - 2048))
        }
    }
}
