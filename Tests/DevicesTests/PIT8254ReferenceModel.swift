/// One 8254 counter as the datasheet's prose has it, one CLK at a time and with no shortcut: what the chip's
/// arithmetic is compared with. Binary counts in two bytes, or BCD.
struct PITReferenceCounter {
    let mode: Int
    let isBCD: Bool
    var out: Bool
    var gate: Bool
    var ce = 0
    var nullCount = true
    private var cr: Int?
    private var loadOnNextClock = false
    private var loaded = false
    private var strobeDue = false
    private var oddHalf = false

    init(mode: Int, isBCD: Bool, gate: Bool) {
        self.mode = mode
        self.isBCD = isBCD
        self.gate = gate
        out = mode != 0
    }

    private var modulus: Int { isBCD ? 10_000 : 65_536 }
    var reading: Int { ce % modulus }

    mutating func write(count: Int) {
        cr = count == 0 ? modulus : count
        nullCount = true
        if mode == 0 { out = false }
        if mode == 0 || mode == 4 || ((mode == 2 || mode == 3) && !loaded) { loadOnNextClock = true }
    }

    mutating func set(gate level: Bool) {
        let rising = level && !gate
        let falling = !level && gate
        gate = level
        if rising, [1, 2, 3, 5].contains(mode), cr != nil { loadOnNextClock = true }
        if falling, mode == 2 || mode == 3 { out = true }
    }

    mutating func clock() {
        if loadOnNextClock, let cr {
            loadOnNextClock = false
            loaded = true
            nullCount = false
            ce = cr
            strobeDue = true
            if mode == 1 { out = false }
            if mode >= 2 { out = true }
            if mode == 3 {
                oddHalf = cr % 2 == 1
                ce = cr - cr % 2
            }
            return
        }
        if mode >= 4, !out { out = true }
        guard loaded, let cr, gate || mode == 1 || mode == 5 else { return }
        switch mode {
        case 0, 1:
            ce = ce == 0 ? modulus - 1 : ce - 1
            if ce == 0 { out = true }
        case 2:
            if ce == 1 {
                ce = cr
                nullCount = false
                out = true
            } else {
                ce -= 1
                if ce == 1 { out = false }
            }
        case 3:
            // An odd count's high half shows 0 for one pulse more.
            if ce == 2 && !(oddHalf && out) || ce == 0 {
                out.toggle()
                oddHalf = cr % 2 == 1
                ce = cr - cr % 2
                nullCount = false
            } else {
                ce -= 2
            }
        default:
            ce = ce == 0 ? modulus - 1 : ce - 1
            if ce == 0, strobeDue {
                strobeDue = false
                out = false
            }
        }
    }
}

/// A small seeded generator, so that a failure can be run again.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        // splitmix64
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
