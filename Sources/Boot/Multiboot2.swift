import VMCore

/// Multiboot, version 2. Given: command line, loader's name, modules (the initrds), memory sizes and map, ACPI RSDP
/// (old and new), load base address. Not given: boot device, VBE, framebuffer, ELF symbols, APM, EFI, SMBIOS, network.
/// Source: [MULTIBOOT2 §3].
enum Multiboot2 {
    private static let magic: UInt32 = 0xE852_50D6
    private static let startMagic: UInt32 = 0x36D7_6289
    /// More than there are kinds of header tags.
    private static let tagLimit = 64

    /// What a header asks for, as far as it can be given.
    private struct Request {
        var addresses: Multiboot.Addresses?
        var entry: UInt32?
    }

    private static func header(_ image: ImageBytes) -> UInt64? {
        Multiboot.find(magic, alignment: 8, words: 4, limit: 32768, in: image)
    }

    static func isMultiboot(_ image: ImageBytes) -> Bool { header(image) != nil }

    static func load(
        _ image: ImageBytes, plan: inout MemoryPlan, configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        guard let offset = header(image) else {
            throw .unsupported(image: image.name, problem: "it has no Multiboot header")
        }
        let request = try parse(image, at: offset)
        let start = try Multiboot.load(
            image, addresses: request.addresses, entry: request.entry, headerOffset: offset, plan: &plan)
        // The kernel's own claims come after the BIOS area's and the tables'.
        let first = plan.claims.dropFirst(2).map(\.first).min() ?? 0
        let modules = try Initrd.place(
            configuration.initrds, limit: GuestMemory.holeStart.rawValue - 1, in: &plan)
        let map = try E820Map(memory: plan.memory, reserved: configuration.reserved)
        let bytes = try information(
            map: map, modules: modules, loadBase: UInt32(truncatingIfNeeded: first), configuration: configuration,
            memory: plan.memory)
        try Multiboot.place(bytes, plan: &plan)
        return Multiboot.entryPoint(start, magic: startMagic, method: "Multiboot 2")
    }

    /// Reads the header's tags. Source: [MULTIBOOT2 §3.1] OS image format.
    private static func parse(_ image: ImageBytes, at offset: UInt64) throws(BootError) -> Request {
        guard try image.field(UInt32.self, at: offset + 4) == 0 else {
            throw .wrongArchitecture(image: image.name, architecture: "MIPS")
        }
        let count = UInt64(try image.field(UInt32.self, at: offset + 8))
        // Source: [MULTIBOOT2 §3.1]: the whole of it lies in the first 32768 bytes.
        guard offset + count <= 32768 else {
            throw .malformed(image: image.name, problem: "a Multiboot header of \(count) bytes, and it is to end within the first 32768 bytes")
        }
        let header = try image.part(at: offset, count: count)
        var request = Request()
        var position: UInt64 = 16
        for _ in 0..<tagLimit {
            // A header may end without the end tag; its length then ends it.
            guard position < header.count else { return request }
            let type = try header.field(UInt16.self, at: position)
            let isOptional = try header.field(UInt16.self, at: position + 2) & 1 != 0
            let size = UInt64(try header.field(UInt32.self, at: position + 4))
            if type == 0 { return request }
            guard size >= 8 else {
                throw .malformed(image: image.name, problem: "a Multiboot header tag of \(size) bytes")
            }
            let tag = try header.part(at: position, count: size)
            try apply(tag, type: type, isOptional: isOptional, to: &request, image: image)
            position = (position + size + 7) & ~7
        }
        throw .malformed(image: image.name, problem: "its Multiboot header has more than \(tagLimit) tags")
    }

    private static func apply(
        _ tag: ImageBytes, type: UInt16, isOptional: Bool, to request: inout Request, image: ImageBytes
    ) throws(BootError) {
        func refuse(_ what: String) throws(BootError) {
            if isOptional { return }
            throw .unsupported(image: image.name, problem: "its Multiboot header asks for \(what), and there is none")
        }
        switch type {
        case 1:  // information that must be given
            // Command line, loader name, module, memory sizes, memory map, the two RSDPs, load base address.
            let given: Set<UInt32> = [1, 2, 3, 4, 6, 14, 15, 21]
            var offset: UInt64 = 8
            while let wanted = tag.integer(UInt32.self, at: offset) {
                if !given.contains(wanted) { try refuse("boot information of type \(wanted)") }
                offset += 4
            }
        case 2:
            request.addresses = Multiboot.Addresses(
                header: try tag.field(UInt32.self, at: 8), load: try tag.field(UInt32.self, at: 12),
                loadEnd: try tag.field(UInt32.self, at: 16), bssEnd: try tag.field(UInt32.self, at: 20))
            // All ones in the load address: from the file's beginning.
            if let addresses = request.addresses, addresses.load == .max {
                throw .unsupported(image: image.name, problem: "its Multiboot header leaves its load address open")
            }
        case 3: request.entry = try tag.field(UInt32.self, at: 8)
        case 4: if try tag.field(UInt32.self, at: 8) & 1 != 0 { try refuse("a text console") }
        case 5: try refuse("a framebuffer")
        case 6: break  // modules on page boundaries: always
        case 7: try refuse("EFI boot services")
        case 8, 9: break  // entries for EFI: there is none
        case 10: break  // relocatable: its own address is as good as any
        default: try refuse("a feature unknown here (tag \(type))")
        }
    }

    /// Source: [MULTIBOOT2 §3.6] boot information format.
    private static func information(
        map: E820Map, modules: [Initrd.Placed], loadBase: UInt32, configuration: BootConfiguration, memory: GuestMemory
    ) throws(BootError) -> [UInt8] {
        var bytes = LittleEndianBytes(count: 8)
        func tag(_ type: UInt32, _ contents: [UInt8]) {
            bytes.append(type)
            bytes.append(UInt32(8 + contents.count))
            bytes.append(contents)
            bytes.align(to: 8)
        }
        func words(_ values: [UInt64], _ count: Int = 4) -> [UInt8] { values.flatMap { AML.little($0, count) } }

        try KernelCommandLine.check(configuration.commandLine, limit: BootLayout.informationLimit / 2)
        tag(1, Array(configuration.commandLine.utf8) + [0])
        tag(2, Array("Windhover".utf8) + [0])
        for module in modules {
            let start = module.address.rawValue
            tag(3, words([start, start &+ module.count]) + Array(Multiboot.baseName(module.name).utf8) + [0])
        }
        tag(4, words([BootLayout.extendedBIOSData.rawValue / 1024, min(map.extendedKibibytes, UInt64(UInt32.max))]))
        var entries = words([24, 0])
        for range in map.entries {
            entries += words([range.base.rawValue, range.count], 8) + words([UInt64(range.kind.rawValue), 0])
        }
        tag(6, entries)
        if let rsdp = configuration.rsdp {
            let copy = try placing { () throws(GuestMemoryError) in try memory.read(at: rsdp, count: 36) }
            tag(14, Array(copy.prefix(20)))
            tag(15, copy)
        }
        tag(21, words([UInt64(loadBase)]))
        tag(0, [])
        bytes.store(UInt32(bytes.count), at: 0)
        return bytes.bytes
    }
}
