import VMCore

/// What every way of starting Linux ends with: command line, initrd, boot parameters, the processor's tables.
enum Linux {
    /// Finishes a load whose kernel is in place.
    static func finish(
        header: SetupHeader, mode: EntryPoint.Mode, plan: inout MemoryPlan, configuration: BootConfiguration
    ) throws(BootError) -> EntryPoint {
        try KernelCommandLine.place(configuration.commandLine, limit: header.commandLineLimit, in: &plan)
        let initrds = try Initrd.place(
            configuration.initrds, limit: header.initrdLimit, mayUseHighMemory: header.mayLieAbove4GiB, in: &plan)
        var parameters = BootParameters(
            header: header, memoryMap: try E820Map(memory: plan.memory, reserved: configuration.reserved))
        parameters.initrd = Initrd.whole(initrds)
        parameters.rsdp = configuration.rsdp
        let page = try parameters.page()
        let memory = plan.memory
        try placing { () throws(GuestMemoryError) in try memory.write(page, at: BootLayout.parameters) }
        var long = false
        if case .long64 = mode { long = true }
        try InitialTables.place(in: memory, long: long)
        return EntryPoint(mode, method: long ? "Linux 64-bit" : "Linux 32-bit")
    }
}
