import VMCore

/// The PVH entry: an ELF note names a 32-bit entry point, which gets the start information's address in EBX.
/// Source: [XEN-PVH] x86/HVM direct boot ABI; [XEN-START-INFO] struct hvm_start_info, version 1.
enum PVH {
    static let noteOwner = "Xen"
    static let noteType: UInt32 = 18  // XEN_ELFNOTE_PHYS32_ENTRY
    private static let magic: UInt32 = 0x336E_C578

    /// Places the start information with its memory map, module and command line. The kernel is in place.
    ///
    /// - Parameter commandLineLimit: bytes, without the terminating zero.
    static func finish(
        entry: UInt32, commandLineLimit: UInt64, initrdLimit: UInt64, plan: inout MemoryPlan,
        configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        try KernelCommandLine.place(configuration.commandLine, limit: commandLineLimit, in: &plan)
        let initrd = Initrd.whole(try Initrd.place(configuration.initrds, limit: initrdLimit, in: &plan))
        let map = try E820Map(memory: plan.memory, reserved: configuration.reserved)

        var information = LittleEndianBytes()
        for range in map.entries {
            information.append(range.base.rawValue)
            information.append(range.count)
            information.append(range.kind.rawValue)
            information.append(UInt32(0))
        }
        let modules = BootLayout.information.rawValue + UInt64(information.count)
        if initrd.count > 0 {
            information.append(initrd.address)
            information.append(initrd.count)
            information.append(UInt64(0))  // no command line of its own
            information.append(UInt64(0))
        }
        guard information.count <= BootLayout.informationLimit else {
            throw .tooManyRanges(count: map.entries.count, limit: Int(BootLayout.informationLimit) / 24 - 2)
        }

        var start = LittleEndianBytes()
        start.append(magic)
        start.append(UInt32(1))  // version
        start.append(UInt32(0))  // flags
        start.append(UInt32(initrd.count > 0 ? 1 : 0))
        start.append(initrd.count > 0 ? modules : 0)
        start.append(BootLayout.commandLine.rawValue)
        start.append(configuration.rsdp?.rawValue ?? 0)
        start.append(BootLayout.information.rawValue)
        start.append(UInt32(map.entries.count))
        start.append(UInt32(0))

        try plan.claim("the start information", at: BootLayout.information, count: UInt64(information.count))
        let (memory, list, head) = (plan.memory, information.bytes, start.bytes)
        try placing { () throws(GuestMemoryError) in
            try memory.write(list, at: BootLayout.information)
            try memory.write(head, at: BootLayout.parameters)
        }
        try InitialTables.place(in: memory, long: false)
        let parameters = UInt32(truncatingIfNeeded: BootLayout.parameters.rawValue)
        return EntryPoint(.protected32(eip: entry, eax: 0, ebx: parameters, esi: 0), method: "PVH")
    }
}
