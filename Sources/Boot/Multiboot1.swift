import VMCore

/// Multiboot, version 1. Given: memory sizes and map, command line, modules (the initrds), the loader's name.
/// Not given: boot device, symbols, drives, ROM configuration table, APM, VBE, framebuffer.
/// Source: [MULTIBOOT1 §3].
enum Multiboot1 {
    private static let magic: UInt32 = 0x1BAD_B002
    private static let startMagic: UInt32 = 0x2BAD_B002

    private static func header(_ image: ImageBytes) -> UInt64? {
        Multiboot.find(magic, alignment: 4, words: 3, limit: 8192, in: image)
    }

    static func isMultiboot(_ image: ImageBytes) -> Bool { header(image) != nil }

    static func load(
        _ image: ImageBytes, plan: inout MemoryPlan, configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        guard let offset = header(image) else {
            throw .unsupported(image: image.name, problem: "it has no Multiboot header")
        }
        let flags = try image.field(UInt32.self, at: offset + 4)
        // Bits 0 (modules on page boundaries) and 1 (memory information) are always so.
        if flags & 1 << 2 != 0 {
            throw .unsupported(
                image: image.name, problem: "its Multiboot header asks for a video mode, and there is none")
        }
        // What is not understood in the low half must be refused; in the high half it may be ignored.
        let unknown = flags & 0xFFF8
        guard unknown == 0 else {
            throw .unsupported(
                image: image.name,
                problem: "its Multiboot header asks for features unknown here (flags 0x\(String(unknown, radix: 16)))")
        }
        var addresses: Multiboot.Addresses?
        var entry: UInt32?
        if flags & 1 << 16 != 0 {
            addresses = Multiboot.Addresses(
                header: try image.field(UInt32.self, at: offset + 12),
                load: try image.field(UInt32.self, at: offset + 16),
                loadEnd: try image.field(UInt32.self, at: offset + 20),
                bssEnd: try image.field(UInt32.self, at: offset + 24))
            entry = try image.field(UInt32.self, at: offset + 28)
        }
        let start = try Multiboot.load(image, addresses: addresses, entry: entry, headerOffset: offset, plan: &plan)
        try KernelCommandLine.place(configuration.commandLine, limit: .max, in: &plan)
        let modules = try Initrd.place(
            configuration.initrds, limit: GuestMemory.holeStart.rawValue - 1, in: &plan)
        let map = try E820Map(memory: plan.memory, reserved: configuration.reserved)
        try Multiboot.place(information(map: map, modules: modules), plan: &plan)
        return Multiboot.entryPoint(start, magic: startMagic, method: "Multiboot")
    }

    /// Source: [MULTIBOOT1 §3.3] boot information format.
    private static func information(map: E820Map, modules: [Initrd.Placed]) -> [UInt8] {
        let base = UInt32(truncatingIfNeeded: BootLayout.information.rawValue)
        var bytes = LittleEndianBytes(count: 120)
        func here() -> UInt32 { base &+ UInt32(bytes.count) }

        let mapAddress = here()
        for range in map.entries {
            bytes.append(UInt32(20))  // the entry's size, without this field
            bytes.append(range.base.rawValue)
            bytes.append(range.count)
            bytes.append(range.kind.rawValue)
        }
        let mapCount = here() - mapAddress
        var names: [UInt32] = []
        for module in modules {
            names.append(here())
            bytes.append(Array(Multiboot.baseName(module.name).utf8) + [0])
        }
        let loaderName = here()
        bytes.append(Array("Windhover".utf8) + [0])
        bytes.align(to: 4)
        let list = here()
        for (module, name) in zip(modules, names) {
            bytes.append(UInt32(truncatingIfNeeded: module.address.rawValue))
            bytes.append(UInt32(truncatingIfNeeded: module.address.rawValue &+ module.count))
            bytes.append(name)
            bytes.append(UInt32(0))
        }

        bytes.store(UInt32(1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9), at: 0)  // which fields are valid
        bytes.store(UInt32(truncatingIfNeeded: BootLayout.extendedBIOSData.rawValue / 1024), at: 4)
        bytes.store(UInt32(clamping: map.extendedKibibytes), at: 8)
        bytes.store(UInt32(truncatingIfNeeded: BootLayout.commandLine.rawValue), at: 16)
        bytes.store(UInt32(modules.count), at: 20)
        bytes.store(list, at: 24)
        bytes.store(mapCount, at: 44)
        bytes.store(mapAddress, at: 48)
        bytes.store(loaderName, at: 64)
        return bytes.bytes
    }
}
