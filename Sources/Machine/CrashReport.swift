public import VMCore

/// What is known of a guest that could not go on.
public struct CrashReport: Sendable {
    public enum Cause: Hashable, Sendable {
        case tripleFault
        case engine(VCPUFailure)
        case guestRequest(VCPUExit.SystemEvent)
    }

    public let cause: Cause
    public let vcpu: Int
    public let engine: String
    public let state: VCPUState?
    /// The bytes at RIP, where its address could be translated; at most 15.
    public let code: [UInt8]

    init(cause: Cause, vcpu: Int, engine: String, state: VCPUState?, memory: GuestMemory) {
        self.cause = cause
        self.vcpu = vcpu
        self.engine = engine
        self.state = state
        code = state.map { CrashReport.code(at: $0, memory) } ?? []
    }

    private static func code(at state: VCPUState, _ memory: GuestMemory) -> [UInt8] {
        // In real mode and with flat segments alike, code lies at CS.base + RIP.
        let start = state.system.efer & 1 << 10 != 0 && state.system.cs.long
            ? state.general.rip : state.system.cs.base &+ state.general.rip
        var bytes: [UInt8] = []
        for offset in 0..<UInt64(15) {
            guard let address = PageWalk.translate(start &+ offset, state.system, memory),
                let byte = try? memory.load(UInt8.self, at: address)
            else { break }
            bytes.append(byte)
        }
        return bytes
    }

    /// One line: what happened.
    public var summary: String {
        switch cause {
        case .tripleFault: "the guest crashed: triple fault on vCPU \(vcpu)"
        case .engine(let failure): "the guest stopped on vCPU \(vcpu): \(failure)"
        case .guestRequest(let event): "the guest reported its own crash on vCPU \(vcpu) (\(event))"
        }
    }

    /// What the user may try.
    public var advice: String {
        switch cause {
        case .tripleFault:
            """
            An exception could not be delivered, nor the double fault after it. Usually a kernel for other hardware, \
            a damaged image, or too little memory; `earlyprintk=serial` in --append shows how far a Linux kernel came.
            """
        case .engine(.internal(suberror: 1, _, _)), .engine(.notRescued):
            """
            This host's KVM does not run that instruction on the processor and cannot emulate it either: \
            `hover doctor` tells whether the host runs guest kernels natively.
            """
        case .engine:
            "This is between the monitor and the host's kernel: `hover doctor` may tell more; please report it."
        case .guestRequest:
            "The guest's own console output says why."
        }
    }

    /// Whether the registers are those of a processor reset, not the guest's: KVM on AMD-V resets a vCPU before it reports
    /// a triple fault.
    private var wasReset: Bool {
        guard cause == .tripleFault, let state else { return false }
        return state.general.rip == 0xFFF0 && state.system.cs.base == 0xFFFF_0000
    }

    /// Registers and code, a line each, aligned.
    public var registerDump: String {
        guard let state else { return "  (the registers could not be read)" }
        func hex(_ value: UInt64, _ digits: Int = 16) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        let general = state.general
        let system = state.system
        var lines = wasReset ? ["(after a reset: this host's KVM clears the registers at a triple fault)"] : []
        lines += [
            "rip \(hex(general.rip))  rflags \(hex(general.rflags, 8))",
            "rax \(hex(general.rax))  rbx \(hex(general.rbx))  rcx \(hex(general.rcx))  rdx \(hex(general.rdx))",
            "rsi \(hex(general.rsi))  rdi \(hex(general.rdi))  rbp \(hex(general.rbp))  rsp \(hex(general.rsp))",
            "r8  \(hex(general.r8))  r9  \(hex(general.r9))  r10 \(hex(general.r10))  r11 \(hex(general.r11))",
            "r12 \(hex(general.r12))  r13 \(hex(general.r13))  r14 \(hex(general.r14))  r15 \(hex(general.r15))",
            "cr0 \(hex(system.cr0, 8))  cr2 \(hex(system.cr2))  cr3 \(hex(system.cr3))  cr4 \(hex(system.cr4, 8))  efer \(hex(system.efer, 4))",
        ]
        for (name, segment) in [
            ("cs", system.cs), ("ss", system.ss), ("ds", system.ds), ("es", system.es), ("fs", system.fs), ("gs", system.gs),
            ("tr", system.tr), ("ldt", system.ldtr),
        ] {
            let label = name + String(repeating: " ", count: 3 - name.count)
            lines.append(
                "\(label) \(hex(UInt64(segment.selector), 4))  base \(hex(segment.base))  limit \(hex(UInt64(segment.limit), 8))")
        }
        lines.append("gdt base \(hex(system.gdtr.base))  limit \(hex(UInt64(system.gdtr.limit), 4))")
        lines.append("idt base \(hex(system.idtr.base))  limit \(hex(UInt64(system.idtr.limit), 4))")
        lines.append("code " + (code.isEmpty ? "(not mapped)" : code.map { hex(UInt64($0), 2) }.joined(separator: " ")))
        return lines.map { "  " + $0 }.joined(separator: "\n")
    }
}
