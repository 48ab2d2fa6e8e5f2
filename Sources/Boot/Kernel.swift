import VMCore

/// The ways into an unpacked kernel, whatever file it came from.
struct KernelEntries: Hashable, Sendable {
    /// Physical address of the 64-bit entry.
    var long: UInt64?
    /// Physical address of the PVH entry.
    var pvh: UInt32?
    /// Whether its notes say that it is Linux, so that its limits are known and its 64-bit entry is Linux's.
    var isLinux: Bool

    /// Places what goes with a kernel that is in memory, for the entry that is asked for or suits best.
    ///
    /// Linux goes through its 64-bit entry, which leaves out its 32-bit start; another kernel with a PVH note
    /// through that, because nothing says what its ELF entry expects.
    func finish(
        image: ImageBytes, header: SetupHeader, plan: inout MemoryPlan, configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        let viaPVH: Bool
        switch configuration.entry {
        case .automatic: viaPVH = pvh != nil && (!isLinux || long == nil)
        case .linux: viaPVH = false
        case .pvh: viaPVH = true
        case .multiboot: throw .unsupported(image: image.name, problem: "it has no Multiboot header")
        }
        if viaPVH {
            guard let pvh else { throw .unsupported(image: image.name, problem: "it has no PVH note") }
            let limit = isLinux ? header.commandLineLimit : .max
            let initrdLimit = isLinux ? header.initrdLimit : GuestMemory.holeStart.rawValue - 1
            return try PVH.finish(
                entry: pvh, commandLineLimit: limit, initrdLimit: initrdLimit, plan: &plan,
                configuration: configuration)
        }
        guard let long else {
            throw .unsupported(
                image: image.name,
                problem: "it is an ELF file without a 64-bit entry, a PVH note or a Multiboot header, "
                    + "so nothing says how to start it")
        }
        let mode = EntryPoint.Mode.long64(rip: long, rsi: BootLayout.parameters.rawValue)
        return try Linux.finish(header: header, mode: mode, plan: &plan, configuration: configuration)
    }
}

extension ELF {
    /// The entries this file offers.
    /// - Throws: `malformed` for an entry outside the file's segments; a PVH kernel's ELF entry may be.
    func entries() throws(BootError) -> KernelEntries {
        var pvh: UInt32?
        if let note = notes.first(where: { $0.owner == PVH.noteOwner && $0.type == PVH.noteType }) {
            // Four bytes, or eight of which four count.
            guard let address = note.descriptor.integer(UInt32.self, at: 0) else {
                throw .malformed(image: image.name, problem: "its PVH note has no address")
            }
            guard holds(physical: UInt64(address)) else {
                throw .malformed(
                    image: image.name,
                    problem: "its PVH entry \(GuestAddress(UInt64(address))) is in none of its segments")
            }
            pvh = address
        }
        let isLinux = notes.contains {
            $0.owner == "Linux" || ($0.owner == PVH.noteOwner && $0.type == 6 && $0.descriptor.holds("linux", at: 0))
        }
        var long: UInt64?
        if is64Bit {
            do { long = try physicalEntry() } catch { if pvh == nil { throw error } }
        }
        return KernelEntries(long: long, pvh: pvh, isLinux: isLinux)
    }
}
