import VMCore

/// An ELF executable's headers, 32- or 64-bit, little-endian, x86.
/// Source: [ELF] ELF header, program header, note section.
struct ELF: Sendable {
    struct Segment: Hashable, Sendable {
        var fileOffset: UInt64
        /// Linked address.
        var virtual: UInt64
        /// Guest physical address.
        var physical: UInt64
        /// Bytes in the file.
        var fileCount: UInt64
        /// Bytes in memory: what the file does not give is zero.
        var memoryCount: UInt64
    }

    /// One note: who defined it, its type, its descriptor's bytes.
    struct Note {
        var owner: String
        var type: UInt32
        var descriptor: ImageBytes

        var isPVHEntry: Bool { owner == PVH.noteOwner && type == PVH.noteType }
    }

    let image: ImageBytes
    let is64Bit: Bool
    /// As the file gives it: physical or linked.
    let entry: UInt64
    /// PT_LOAD segments with something to load, in file order.
    let segments: [Segment]
    let notes: [Note]

    /// More than any kernel has; keeps the checks between segments cheap whatever a file claims.
    private static let headerLimit = 512
    private static let noteLimit = 1024
    /// No x86 processor addresses more; so sums of two addresses below it never overflow. Source: [SDM3 §4.1.4].
    static let physicalLimit: UInt64 = 1 << 52
    /// Notes are short: a build identifier, an address.
    private static let noteBytesLimit: UInt64 = 1 << 20

    static func isELF(_ image: ImageBytes) -> Bool { image.holds("\u{7F}ELF", at: 0) }

    /// - Throws: `wrongArchitecture`, or what is wrong with the headers. Segments are checked to be in the file.
    init(_ image: ImageBytes) throws(BootError) {
        self.image = image
        let identification = try image.part(at: 0, count: 20)
        let order = try identification.field(UInt8.self, at: 5)
        let machine = try identification.field(UInt16.self, at: 18)
        // Big-endian files are all for other processors: name them by their number as they meant it.
        guard order == 1 else {
            throw .wrongArchitecture(image: image.name, architecture: Self.architecture(machine.byteSwapped))
        }
        switch try image.field(UInt8.self, at: 4) {
        case 1: is64Bit = false
        case 2: is64Bit = true
        default: throw .malformed(image: image.name, problem: "neither a 32-bit nor a 64-bit ELF file")
        }
        guard machine == 62 || (machine == 3 && !is64Bit) else {
            throw .wrongArchitecture(image: image.name, architecture: Self.architecture(machine))
        }
        let type = try image.field(UInt16.self, at: 16)
        guard type == 2 || type == 3 else {
            let kind = type == 1 ? "an object file" : type == 4 ? "a core dump" : "an ELF file of type \(type)"
            throw .notAKernel(image: image.name, kind: kind, advice: "link it into an executable")
        }
        let tableOffset: UInt64
        if is64Bit {
            entry = try image.field(UInt64.self, at: 24)
            tableOffset = try image.field(UInt64.self, at: 32)
        } else {
            entry = UInt64(try image.field(UInt32.self, at: 24))
            tableOffset = UInt64(try image.field(UInt32.self, at: 28))
        }
        let entrySize = UInt64(try image.field(UInt16.self, at: is64Bit ? 54 : 42))
        let entryCount = Int(try image.field(UInt16.self, at: is64Bit ? 56 : 44))
        guard entryCount > 0 else { throw .malformed(image: image.name, problem: "it has no program headers") }
        guard entryCount <= Self.headerLimit else {
            throw .malformed(image: image.name, problem: "\(entryCount) program headers")
        }
        guard entrySize >= (is64Bit ? 56 : 32) else {
            throw .malformed(image: image.name, problem: "program headers of \(entrySize) bytes")
        }
        let table = try image.part(at: tableOffset, count: entrySize * UInt64(entryCount))

        var segments: [Segment] = []
        var notes: [Note] = []
        var namesInterpreter = false
        for index in 0..<UInt64(entryCount) {
            let header = try table.part(at: index * entrySize, count: entrySize)
            let segment =
                is64Bit
                ? Segment(
                    fileOffset: try header.field(UInt64.self, at: 8), virtual: try header.field(UInt64.self, at: 16),
                    physical: try header.field(UInt64.self, at: 24), fileCount: try header.field(UInt64.self, at: 32),
                    memoryCount: try header.field(UInt64.self, at: 40))
                : Segment(
                    fileOffset: UInt64(try header.field(UInt32.self, at: 4)),
                    virtual: UInt64(try header.field(UInt32.self, at: 8)),
                    physical: UInt64(try header.field(UInt32.self, at: 12)),
                    fileCount: UInt64(try header.field(UInt32.self, at: 16)),
                    memoryCount: UInt64(try header.field(UInt32.self, at: 20)))
            switch try header.field(UInt32.self, at: 0) {
            case 1 where segment.memoryCount > 0 || segment.fileCount > 0:
                guard segment.fileCount <= segment.memoryCount else {
                    throw .malformed(
                        image: image.name,
                        problem: "segment \(index) has \(segment.fileCount) bytes for \(segment.memoryCount) of memory")
                }
                _ = try image.part(at: segment.fileOffset, count: segment.fileCount)
                let (end, overflow) = segment.physical.addingReportingOverflow(segment.memoryCount)
                guard !overflow, end <= Self.physicalLimit else {
                    throw .malformed(
                        image: image.name, problem: "segment \(index) reaches past the physical address space")
                }
                segments.append(segment)
            case 3: namesInterpreter = true
            case 4 where segment.fileCount <= Self.noteBytesLimit:
                let part = try image.part(at: segment.fileOffset, count: segment.fileCount)
                Self.collect(part, into: &notes)
            default:
                break
            }
        }
        // PT_INTERP names a dynamic linker. Of kernels only FreeBSD's have one, which names nothing; they have a note, too.
        guard !namesInterpreter || notes.contains(where: { $0.isPVHEntry }) || Multiboot2.isMultiboot(image) || Multiboot1.isMultiboot(image)
        else {
            throw .notAKernel(
                image: image.name, kind: "a Linux program",
                advice: "give a kernel, and programs in an --initrd")
        }
        guard !segments.isEmpty else { throw .malformed(image: image.name, problem: "it has nothing to load") }
        self.segments = segments
        self.notes = notes
    }

    /// Appends the notes of one segment. One that does not parse ends its segment: notes are hints, not contents.
    private static func collect(_ bytes: ImageBytes, into notes: inout [Note]) {
        var offset: UInt64 = 0
        while notes.count < noteLimit,
            let nameCount = bytes.integer(UInt32.self, at: offset),
            let descriptorCount = bytes.integer(UInt32.self, at: offset + 4),
            let type = bytes.integer(UInt32.self, at: offset + 8),
            nameCount <= 256,
            let name = bytes.slice(at: offset + 12, count: UInt64(nameCount)),
            let descriptor = bytes.slice(
                at: offset + 12 + (UInt64(nameCount) + 3) & ~3, count: UInt64(descriptorCount))
        {
            let owner = String(decoding: name.array.prefix { $0 != 0 }, as: UTF8.self)
            notes.append(Note(owner: owner, type: type, descriptor: descriptor))
            offset += 12 + (UInt64(nameCount) + 3) & ~3 + (UInt64(descriptorCount) + 3) & ~3
        }
    }

    /// Whether the byte at a physical address comes from the file.
    func holds(physical address: UInt64) -> Bool {
        segments.contains {
            let (offset, before) = address.subtractingReportingOverflow($0.physical)
            return !before && offset < $0.fileCount
        }
    }

    /// The physical address to start at: the entry as given where a segment holds it, else through its linked address.
    func physicalEntry() throws(BootError) -> UInt64 {
        if holds(physical: entry) { return entry }
        for segment in segments {
            let (offset, before) = entry.subtractingReportingOverflow(segment.virtual)
            if !before, offset < segment.fileCount { return segment.physical + offset }
        }
        throw .malformed(
            image: image.name, problem: "its entry point \(GuestAddress(entry)) is in none of its segments")
    }

    /// Claims each segment's memory and copies its bytes there. What the file does not give stays as the memory is:
    /// zero.
    func load(into plan: inout MemoryPlan) throws(BootError) {
        for segment in segments {
            let address = GuestAddress(segment.physical)
            try plan.claim("\(image.name)'s segment", at: address, count: segment.memoryCount)
            try image.part(at: segment.fileOffset, count: segment.fileCount).copy(into: plan.memory, at: address)
        }
    }

    /// The name of the processor a file is for.
    private static func architecture(_ machine: UInt16) -> String {
        switch machine {
        case 2, 18, 43: "SPARC"
        case 3: "32-bit x86"
        case 4: "Motorola 68000"
        case 8: "MIPS"
        case 15: "PA-RISC"
        case 20: "PowerPC"
        case 21: "64-bit PowerPC"
        case 22: "IBM S/390"
        case 40: "32-bit ARM"
        case 42: "SuperH"
        case 50: "Itanium"
        case 62: "x86-64"
        case 183: "64-bit ARM"
        case 243: "RISC-V"
        case 258: "LoongArch"
        default: "another processor (ELF machine \(machine))"
        }
    }
}
