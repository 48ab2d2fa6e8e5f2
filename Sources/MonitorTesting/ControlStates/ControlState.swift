internal import VMCore

/// How a program ended, in a form in which all engines can be compared: name and value, in a fixed order.
///
/// Only what the program has changed is in it, so that it is short.
public struct ControlOutcome: Hashable, Sendable, CustomStringConvertible {
    public struct Field: Hashable, Sendable {
        public let name: String
        public let value: String
        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    public let fields: [Field]

    public init(_ fields: [Field]) { self.fields = fields }

    public subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

    public var description: String { fields.map { "\($0.name)=\($0.value)" }.joined(separator: " ") }

    /// Reads `description`; nil where it is none.
    public init?(_ text: some StringProtocol) {
        var fields: [Field] = []
        for word in text.split(separator: " ") {
            guard let equals = word.firstIndex(of: "=") else { return nil }
            fields.append(Field(String(word[..<equals]), String(word[word.index(after: equals)...])))
        }
        self.fields = fields
    }

    /// FNV-1a over the description, folded to 32 bits.
    public var digest: UInt32 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in description.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return UInt32(truncatingIfNeeded: hash ^ hash &>> 32)
    }

    /// The fields in which two differ, for a report.
    public func differences(from other: ControlOutcome) -> [String] {
        var names = fields.map(\.name)
        for field in other.fields where self[field.name] == nil { names.append(field.name) }
        return names.compactMap { name in
            let mine = self[name], theirs = other[name]
            return mine == theirs ? nil : "\(name): \(mine ?? "as before"), not \(theirs ?? "as before")"
        }
    }
}

extension ControlOutcome {
    /// - Parameters:
    ///   - memory: what stands below `ControlLayout.end` in the end.
    init(ending: String, state: VCPUState?, memory: [UInt8], from environment: ControlEnvironment, before: [UInt8]) {
        var fields = [Field("end", ending)]
        if let state {
            let initial = Self.registers(environment.state)
            for (old, new) in zip(initial, Self.registers(state)) where old != new { fields.append(new) }
        }
        fields += Self.changes(before, memory)
        self.fields = fields
    }

    private static func registers(_ state: VCPUState) -> [Field] {
        let g = state.general
        let s = state.system
        let numbers: [(String, UInt64)] = [
            ("rax", g.rax), ("rcx", g.rcx), ("rdx", g.rdx), ("rbx", g.rbx), ("rsp", g.rsp), ("rbp", g.rbp), ("rsi", g.rsi),
            ("rdi", g.rdi), ("r8", g.r8), ("r9", g.r9), ("r10", g.r10), ("r11", g.r11), ("r12", g.r12), ("r13", g.r13),
            ("r14", g.r14), ("r15", g.r15), ("rip", g.rip), ("rflags", g.rflags), ("cr0", s.cr0), ("cr2", s.cr2),
            ("cr3", s.cr3), ("cr4", s.cr4), ("cr8", s.cr8), ("efer", s.efer), ("dr0", state.debug.dr0), ("dr1", state.debug.dr1),
            ("dr2", state.debug.dr2), ("dr3", state.debug.dr3), ("dr6", state.debug.dr6), ("dr7", state.debug.dr7),
        ]
        var fields = numbers.map { Field($0.0, short($0.1)) }
        fields.append(Field("gdtr", "\(short(s.gdtr.base)):\(short(s.gdtr.limit))"))
        fields.append(Field("idtr", "\(short(s.idtr.base)):\(short(s.idtr.limit))"))
        let segments = [
            ("cs", s.cs), ("ss", s.ss), ("ds", s.ds), ("es", s.es), ("fs", s.fs), ("gs", s.gs), ("ldtr", s.ldtr), ("tr", s.tr),
        ]
        for (name, segment) in segments {
            fields.append(Field(name, text(segment, s, name)))
        }
        for register in ControlEnvironment.msrs {
            let value = state.msrs.first { $0.index == register.index }?.value
            fields.append(Field(register.name, value.map(short) ?? "none"))
        }
        return fields
    }

    /// Selector, and the hidden part as far as all engines keep it:
    /// - of an unusable register, nothing: VMX has a bit for it, SVM an absent segment, and whether a null selector leaves
    ///   the base of FS and GS is each vendor's own ([SDM2 MOV], [APM2 §4.5.3]);
    ///   Long mode's SS and any LDTR with a null selector are such, though QEMU keeps something there;
    /// - in real mode, selector, base and limit: VMX runs it in virtual-8086 mode's segments;
    /// - G is told by the limit, and KVM on SVM computes it from there;
    /// - the accessed bit is set in what is loaded, which KVM on SVM sees to itself.
    private static func text(_ segment: SegmentState, _ system: SystemRegisters, _ name: String) -> String {
        let selector = short(segment.selector)
        let isNull = segment.selector & 0xFFFC == 0 && (name == "ldtr" || name == "ss" && system.efer & 0x400 != 0)
        if segment.unusable || !segment.present || isNull { return selector + ":unusable" }
        let place = "\(selector):\(short(segment.base)):\(short(UInt64(segment.limit)))"
        if system.cr0 & 1 == 0, segment.codeOrData { return place }
        let type = segment.codeOrData ? segment.type | 1 : segment.type
        let flags = [(segment.codeOrData, "s"), (segment.big, "b"), (segment.long, "l"), (segment.available, "a")]
        let letters = flags.filter(\.0).map(\.1).joined()
        return "\(place):\(short(UInt64(type)))\(letters)\(segment.dpl)"
    }

    /// Runs of bytes that differ, at most 7 equal ones between two.
    private static func changes(_ old: [UInt8], _ new: [UInt8]) -> [Field] {
        var fields: [Field] = []
        var start = -1
        var last = -1
        func close() {
            guard start >= 0 else { return }
            let bytes = new[start...last].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
            fields.append(Field("@" + String(start, radix: 16), bytes))
        }
        for block in stride(from: 0, to: min(old.count, new.count), by: 256) {
            if old[block..<block + 256] == new[block..<block + 256] { continue }
            for index in block..<block + 256 where old[index] != new[index] {
                if start < 0 || index - last > 8 {
                    close()
                    start = index
                }
                last = index
            }
        }
        close()
        return fields
    }
}
