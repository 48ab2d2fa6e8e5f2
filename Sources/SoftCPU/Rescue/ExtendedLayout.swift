internal import VMCore

/// Where the components of the extended state lie in an XSAVE area. Source: [SDM1 §13.4], [SDM2 CPUID] leaf 0DH.
///
/// ```
///   0  the FXSAVE image: components 0, x87, and 1, SSE
/// 512  header: XSTATE_BV, XCOMP_BV, 48 bytes of zeros
/// 576  the rest: where CPUID says, in the standard form; one after the other, in the compacted one
/// ```
struct ExtendedLayout {
    struct Component {
        var size = 0
        /// In the standard form.
        var offset = 0
        /// To 64 bytes, in the compacted form.
        var isAligned = false
        /// Of IA32_XSS, in no standard form.
        var isSupervisor = false
    }

    static var x87: UInt64 { 1 }
    static var sse: UInt64 { 2 }
    static var avx: UInt64 { 4 }
    static var stateBits: Int { 512 }
    static var headerEnd: Int { 576 }
    static var isCompacted: UInt64 { 1 &<< 63 }
    /// Larger than any processor's: what a hypervisor says is not believed beyond.
    static var limit: Int { 16384 }

    /// By number; of size zero where there is none.
    private(set) var components = [Component](repeating: Component(), count: 64)
    /// What XCR0 may hold.
    let userComponents: UInt64

    init(_ cpuid: (_ leaf: UInt32, _ subleaf: UInt32) -> RescueSetting.Answer) {
        let main = cpuid(0xD, 0)
        userComponents = UInt64(main.edx) &<< 32 | UInt64(main.eax)
        let first = cpuid(0xD, 1)
        let all = userComponents | UInt64(first.edx) &<< 32 | UInt64(first.ecx)
        for number in 2..<63 where all &>> UInt64(number) & 1 != 0 {
            let answer = cpuid(0xD, UInt32(number))
            let component = Component(
                size: Int(answer.eax), offset: Int(answer.ebx), isAligned: answer.ecx & 2 != 0, isSupervisor: answer.ecx & 1 != 0)
            guard component.size <= Self.limit, component.offset <= Self.limit else { continue }
            components[number] = component
        }
    }

    /// The numbers of `set`, from 2 up.
    static func numbers(_ set: UInt64) -> [Int] { (2..<63).filter { set &>> UInt64($0) & 1 != 0 } }

    /// Each component's offset, and the area's size, in the standard form.
    func standard(_ set: UInt64) -> (offsets: [Int], size: Int) {
        var size = Self.headerEnd
        for number in Self.numbers(set) { size = max(size, components[number].offset &+ components[number].size) }
        return (components.map(\.offset), size)
    }

    /// The same in the compacted form that XCOMP_BV describes. Source: [SDM1 §13.4.3].
    func compacted(_ set: UInt64) -> (offsets: [Int], size: Int) {
        var offsets = [Int](repeating: 0, count: 64)
        var at = Self.headerEnd
        for number in Self.numbers(set) {
            if components[number].isAligned { at = (at &+ 63) & ~63 }
            offsets[number] = at
            at &+= components[number].size
        }
        return (offsets, at)
    }

    /// Eight bytes of an area; zero past its end.
    static func word(_ area: [UInt8], _ offset: Int) -> UInt64 {
        guard offset >= 0, offset &+ 8 <= area.count else { return 0 }
        var word: UInt64 = 0
        for byte in 0..<8 { word |= UInt64(area[offset &+ byte]) &<< UInt64(byte &* 8) }
        return word
    }

    static func setWord(_ area: inout [UInt8], _ offset: Int, _ value: UInt64) {
        guard offset >= 0, offset &+ 8 <= area.count else { return }
        for byte in 0..<8 { area[offset &+ byte] = UInt8(truncatingIfNeeded: value &>> UInt64(byte &* 8)) }
    }
}
