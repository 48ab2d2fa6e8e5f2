public import VMCore

/// What a guest is started with, beside its kernel.
public struct BootConfiguration: Sendable {
    /// Who unpacks a compressed kernel.
    public enum Unpacking: String, Hashable, Sendable, CaseIterable {
        /// The monitor, at the host's speed, where it knows the packing; else the guest.
        case host
        /// The kernel's own code, in the guest.
        case guest
    }

    /// The entry of an image that has several.
    public enum Entry: String, Hashable, Sendable, CaseIterable {
        /// The one that suits the image best.
        case automatic
        /// Linux's 64-bit boot protocol.
        case linux
        /// The 32-bit entry of a PVH note.
        case pvh
        case multiboot
    }

    public var commandLine = ""
    /// Initial RAM disks: one after the other for Linux, modules for Multiboot.
    public var initrds: [ImageBytes] = []
    /// The ACPI root pointer, where tables were placed.
    public var rsdp: GuestAddress?
    /// Address ranges that the memory map must not give as RAM.
    public var reserved: [E820Entry] = []
    public var unpacking = Unpacking.host
    public var entry = Entry.automatic

    public init() {}
}

/// A kernel, recognised from its bytes and ready to be loaded.
public struct BootImage: Sendable {
    public let bytes: ImageBytes
    public let kind: ImageKind

    /// - Throws: `BootError` where the bytes are nothing that can be started.
    public init(_ bytes: ImageBytes) throws(BootError) {
        self.bytes = bytes
        kind = try ImageKind(bytes)
    }

    /// Whether the image takes Linux's command line: words that another kernel would not know are not for it.
    public var isLinux: Bool {
        switch kind {
        case .bzImage: true
        case .prepared: PreparedKernel.isLinux(bytes)
        // Most likely; `unpacked` tells.
        case .compressed: true
        case .elf: (try? ELF(bytes).entries().isLinux) ?? false
        case .multiboot1, .multiboot2, .bootSector, .flat: false
        }
    }

    /// What is inside, where the image is packed as a whole; otherwise itself.
    ///
    /// - Parameter limit: the most bytes to unpack to.
    /// - Throws: `BootError`: it cannot be unpacked, or what is inside is nothing that can be started.
    public func unpacked(limit: UInt64) throws(BootError) -> BootImage {
        guard case .compressed(let name) = kind else { return self }
        guard let format = Compression(rawValue: name) else { throw .unrecognized(image: bytes.name) }
        let inside = try BootImage(format.unpack(bytes, limit: min(limit, 4 * ByteCount.gibibyte)))
        // Packed twice is nobody's kernel.
        if case .compressed = inside.kind { throw .unrecognized(image: bytes.name) }
        return inside
    }

    /// Loads the image with what goes with it.
    ///
    /// - Parameter memory: fresh guest memory: all zeros but for ACPI tables. What it holds when this function throws
    ///   is undefined.
    /// - Returns: how to start vCPU 0.
    /// - Throws: `BootError`, naming the image.
    public func load(
        into memory: GuestMemory, _ configuration: BootConfiguration = BootConfiguration()
    ) throws(BootError) -> EntryPoint {
        let inside = try unpacked(limit: memory.size)
        return try Self.load(inside.bytes, kind: inside.kind, into: memory, configuration)
    }

    private static func load(
        _ bytes: ImageBytes, kind: ImageKind, into memory: GuestMemory, _ configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        var plan = MemoryPlan(memory: memory)
        switch kind {
        case .compressed: throw .unrecognized(image: bytes.name)
        case .bzImage:
            try plan.claimTables()
            let image = try BzImage(bytes)
            if configuration.unpacking == .host || configuration.entry == .pvh,
                let elf = try image.unpack(limit: memory.size)
            {
                try elf.load(into: &plan)
                for extent in image.header.extent(beyond: elf) {
                    try plan.claim("\(bytes.name)'s working memory", at: GuestAddress(extent.address), count: extent.count)
                }
                return try elf.entries().finish(
                    image: bytes, header: image.header, plan: &plan, configuration: configuration)
            }
            guard configuration.entry == .automatic || configuration.entry == .linux else {
                throw .unsupported(
                    image: bytes.name, problem: "its packed kernel cannot be reached for an entry other than Linux's")
            }
            let mode = try image.loadPacked(into: &plan)
            return try Linux.finish(header: image.header, mode: mode, plan: &plan, configuration: configuration)
        case .elf:
            return try loadELF(bytes, plan: &plan, configuration)
        case .prepared:
            return try PreparedKernel.load(bytes, plan: &plan, configuration: configuration)
        case .multiboot1, .multiboot2:
            if configuration.entry == .linux || configuration.entry == .pvh {
                guard ELF.isELF(bytes) else {
                    throw .unsupported(image: bytes.name, problem: "it has no entry but Multiboot's")
                }
                return try loadELF(bytes, plan: &plan, configuration)
            }
            return kind == .multiboot1
                ? try Multiboot1.load(bytes, plan: &plan, configuration: configuration)
                : try Multiboot2.load(bytes, plan: &plan, configuration: configuration)
        case .bootSector, .flat:
            guard configuration.entry == .automatic else {
                throw .unsupported(image: bytes.name, problem: "it has no entry but its first byte")
            }
            return try Flat.load(
                bytes, isBootSector: kind == .bootSector, plan: &plan, configuration: configuration)
        }
    }

    private static func loadELF(
        _ bytes: ImageBytes, plan: inout MemoryPlan, _ configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        try plan.claimTables()
        let elf = try ELF(bytes)
        let entries = try elf.entries()
        try elf.load(into: &plan)
        return try entries.finish(image: bytes, header: .forVmlinux, plan: &plan, configuration: configuration)
    }
}
