import Testing
import VMCore
import MonitorTesting

@testable import SoftCPU

/// A vCPU of an engine that stops at every instruction: 64-bit code with page tables, GDT, IDT and TSS, and nobody to run it but
/// the rescuer.
///
///     0x00500  GDT: 0x08 64-bit code, 0x10 data
///     0x01000  code        0x06000  IDT: vector n's handler at 0x2000 + 16 n
///     0x08000  stack       0x09000  page tables: 4 MiB, one to one, in pages of 4 KiB from 0x0C000 on
///     0x20000  data        0xD0000000  a device, mapped at 0x3F0000
final class RescueMachine: RescuedVCPU {
    static let data: UInt64 = 0x20000
    static let device: UInt64 = 0x3F_0000
    let memory: GuestMemory
    let device = RecordingDevice(answer: { offset, _ in 0x1112_1314_1516_1718 &+ offset })
    let rescuer: any InstructionRescuer
    var state = VCPUState()
    var registers: [UInt32: UInt64] = [:]

    /// - Parameter change: of CPUID's answers, which are those of a processor with all that is rescued.
    init(_ change: @escaping @Sendable (UInt32, UInt32, inout RescueSetting.Answer) -> Void = { _, _, _ in }) throws {
        memory = try GuestMemory(size: 4 << 20)
        var map = BusMap()
        try map.add(device, name: "device", base: 0xD000_0000, count: 0x1000, widest: .quad)
        let setting = RescueSetting(
            index: 0, ports: Bus(BusMap()), mmio: Bus(map), ownPages: [GuestAddress(0xFEC0_0000)]
        ) { leaf, subleaf in
            var answer = Self.cpuid(leaf, subleaf)
            change(leaf, subleaf, &answer)
            return answer
        }
        rescuer = try SoftwareRescue(memory: memory, vcpuCount: 1).makeRescuer(setting)
        try makeTables()
        makeState()
    }

    private static func cpuid(_ leaf: UInt32, _ subleaf: UInt32) -> RescueSetting.Answer {
        switch (leaf, subleaf) {
        case (1, _): RescueSetting.Answer(ecx: ~0 & ~(1 << 5), edx: ~0)
        case (7, 0): RescueSetting.Answer(ebx: 1 | 1 << 3 | 1 << 8 | 1 << 10 | 1 << 20 | 1 << 23, ecx: 1 << 3 | 1 << 22)
        case (0xD, 0): RescueSetting.Answer(eax: 0x207)
        case (0xD, 1): RescueSetting.Answer(eax: 0xF, ecx: 0x800)
        // Upper halves of YMM; PKRU; a component of IA32_XSS.
        case (0xD, 2): RescueSetting.Answer(eax: 256, ebx: 576)
        case (0xD, 9): RescueSetting.Answer(eax: 8, ebx: 2688, ecx: 2)
        case (0xD, 11): RescueSetting.Answer(eax: 16, ebx: 0, ecx: 1)
        case (0x8000_0001, _): RescueSetting.Answer(ecx: 1 | 1 << 5, edx: 1 << 11 | 1 << 27)
        case (0x8000_0008, _): RescueSetting.Answer(eax: 40)
        default: RescueSetting.Answer()
        }
    }

    private func makeTables() throws {
        for (index, entry) in ([0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF] as [UInt64]).enumerated() {
            try memory.store(entry, at: GuestAddress(0x500 + 8 * UInt64(index)))
        }
        for vector in 0..<32 as Range<UInt64> {
            let gate = GuestAddress(0x6000 + 16 * vector)
            try memory.store(UInt64(0x8E00) << 32 | 8 << 16 | (0x2000 + 16 * vector), at: gate)
        }
        try memory.store(0xA007 as UInt64, at: GuestAddress(0x9000))
        try memory.store(0xB007 as UInt64, at: GuestAddress(0xA000))
        for table in 0..<2 as Range<UInt64> {
            try memory.store((0xC007 + table << 12) as UInt64, at: GuestAddress(0xB000 + 8 * table))
        }
        for page in 0..<1024 as Range<UInt64> { try setEntry(page << 12, page << 12 | 7) }
        try setEntry(Self.device, 0xD000_0003)
    }

    func setEntry(_ address: UInt64, _ entry: UInt64) throws {
        try memory.store(entry, at: GuestAddress(0xC000 + 8 * (address >> 12)))
    }

    func entry(_ address: UInt64) throws -> UInt64 { try memory.load(UInt64.self, at: GuestAddress(0xC000 + 8 * (address >> 12))) }

    private func makeState() {
        func segment(_ selector: UInt16, code: Bool) -> SegmentState {
            var segment = SegmentState()
            segment.selector = selector
            segment.limit = .max
            segment.type = code ? 0xB : 3
            segment.present = true
            segment.codeOrData = true
            segment.big = !code
            segment.long = code
            segment.granular = true
            return segment
        }
        let data = segment(0x10, code: false)
        state.system.cs = segment(8, code: true)
        (state.system.ds, state.system.es, state.system.ss) = (data, data, data)
        (state.system.fs, state.system.gs) = (data, data)
        state.system.fs.base = 0x1234
        state.system.tr.type = 0xB
        state.system.tr.present = true
        state.system.tr.limit = 0x67
        state.system.ldtr.type = 2
        state.system.ldtr.present = true
        state.system.gdtr = TableState(base: 0x500, limit: 0x17)
        state.system.idtr = TableState(base: 0x6000, limit: 0x1FF)
        state.system.cr0 = 0x8001_0033
        state.system.cr3 = 0x9000
        // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE.
        state.system.cr4 = 0x4_0620
        state.system.efer = 0xD01
        state.system.apicBase = 0xFEE0_0900
        state.general.rip = 0x1000
        state.general.rsp = 0x8000
        state.xcr0 = 7
        state.extended = [UInt8](repeating: 0, count: 4096)
        state.extended[0] = 0x7F
        state.extended[1] = 3
        state.extended[24] = 0x80
        state.extended[25] = 0x1F
        registers = [0x10: 5, 0xC000_0103: 9, 0xC000_0102: 0x9999]
    }

    /// Rescues one instruction at 0x1000.
    @discardableResult
    func run(_ bytes: UInt8...) throws -> RescueOutcome {
        try memory.write(bytes, at: GuestAddress(0x1000))
        state.general.rip = 0x1000
        return rescue()
    }

    /// Rescues the instruction at RIP.
    func rescue() -> RescueOutcome {
        // As an engine does it: the extended state is asked for, and comes back where it has changed.
        var passed = state
        passed.extended = []
        passed.xcr0 = 1
        let outcome = rescuer.rescue(&passed, of: self)
        if passed.extended.isEmpty { (passed.extended, passed.xcr0) = (state.extended, state.xcr0) }
        state = passed
        return outcome
    }

    /// Where an exception's handler begins.
    static func handler(_ vector: UInt64) -> UInt64 { 0x2000 + 16 * vector }

    func store(_ words: [UInt64], at address: UInt64) throws {
        for (index, word) in words.enumerated() { try memory.store(word, at: GuestAddress(address + 8 * UInt64(index))) }
    }

    func word(_ address: UInt64) throws -> UInt64 { try memory.load(UInt64.self, at: GuestAddress(address)) }

    subscript(xmm number: Int) -> [UInt8] {
        get { Array(state.extended[(160 + 16 * number)..<(176 + 16 * number)]) }
        set {
            state.extended.replaceSubrange((160 + 16 * number)..<(176 + 16 * number), with: newValue)
            state.extended[512] |= 2
        }
    }

    // MARK: What a rescuer asks

    func rescuedExtendedState() throws(EngineError) -> (area: [UInt8], xcr0: UInt64) { (state.extended, state.xcr0) }

    func readMSR(_ index: UInt32) -> UInt64? { registers[index] }
    func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool {
        guard registers[index] != nil else { return false }
        registers[index] = value
        return true
    }
}
