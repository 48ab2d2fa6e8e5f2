internal import CHost
internal import X86

/// What the host's processor can execute of what thunks hold.
struct HostFeatures {
    private let basic: InlineArray<4, UInt32>
    private let structured: InlineArray<4, UInt32>
    private let extended: InlineArray<4, UInt32>

    init() {
        basic = HostFeatures.leaf(1)
        structured = HostFeatures.leaf(7)
        extended = HostFeatures.leaf(0x8000_0001)
    }

    private static func leaf(_ number: UInt32) -> InlineArray<4, UInt32> {
        var registers = InlineArray<4, UInt32>(repeating: 0)
        unsafe withUnsafeMutableBytes(of: &registers) { bytes in
            if let base = unsafe bytes.bindMemory(to: UInt32.self).baseAddress { unsafe chost_cpuid(number, 0, base) }
        }
        return registers
    }

    /// What the host's processor lacks of that which CPUID tells every guest of; nil where it has all.
    var lack: String? {
        let wanted: [(Feature, String)] = [(.sse3, "SSE3"), (.ssse3, "SSSE3"), (.sse41, "SSE4.1"), (.sse42, "SSE4.2")]
        let names = wanted.filter { !has($0.0) }.map(\.1)
        return names.isEmpty ? nil : "processor has no \(names.joined(separator: ", "))"
    }

    /// Source: [SDM2 CPUID, Tables 3-10, 3-11, 3-8], [APM3 App. E.4].
    func has(_ feature: Feature) -> Bool {
        let ecx = basic[2]
        switch feature {
        // Every processor that has long mode.
        case .base, .x87, .cmov, .fcmov, .mmx, .fxsr, .sse, .sse2: return true
        case .sse3: return ecx & 1 != 0
        case .pclmulqdq: return ecx &>> 1 & 1 != 0
        case .ssse3: return ecx &>> 9 & 1 != 0
        case .sse41: return ecx &>> 19 & 1 != 0
        case .sse42: return ecx &>> 20 & 1 != 0
        case .aes: return ecx &>> 25 & 1 != 0
        case .sha: return structured[1] &>> 29 & 1 != 0
        case .gfni: return structured[2] &>> 8 & 1 != 0
        case .sse4a: return extended[2] &>> 6 & 1 != 0
        default: return false
        }
    }
}
