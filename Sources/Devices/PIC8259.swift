/// Intel 8259A programmable interrupt controller: eight inputs, one output.
///
/// One chip; `InterruptControllerPair` wires two as a PC does.
///
/// Differs from the datasheet: a rising edge stays latched until it is acknowledged, where the 8259A also wants
/// the input to stay high that long; sources here may announce an event with a bare pulse. (The cascade input
/// does follow the datasheet.) ELCR, which came with EISA, chooses edge or level per input beside ICW1's LTIM.
///
/// Not emulated: the 8080/85 mode (ICW4 µPM = 0 is taken for 8086 mode) and its call addresses, and buffered
/// mode (ICW4 BUF, M/S), which only turns round a data-bus buffer. Source: [8259A].
public struct PIC8259: Hashable, Sendable {
    /// Requests latched by rising edges. What guests read as IRR has the level inputs too: see `irr`.
    private var edges: UInt8 = 0
    /// The input pins.
    private var inputs: UInt8 = 0
    public private(set) var isr: UInt8 = 0
    public private(set) var imr: UInt8 = 0
    /// Edge/level control: a 1 makes that input level-triggered.
    public private(set) var elcr: UInt8 = 0
    /// Which ELCR bits exist: the timer, the cascade and others are edge-triggered for good.
    private let elcrMask: UInt8

    /// ICW1 bit 3: every input is level-triggered.
    private var ltim = false
    /// ICW1 bit 1: no other chip.
    private var isSingle = false
    /// ICW2: the vector of input 0; the low three bits are the input's number.
    private var vectorBase: UInt8 = 0
    /// Before the first ICW2 there are no vectors to give, so nothing is put to the processor.
    private var hasVectors = false
    /// ICW3: on a master, the inputs that have slaves; on a slave, its identity.
    public private(set) var icw3: UInt8 = 0
    private var isAutoEOI = false
    private var isSpecialFullyNested = false

    private var isSpecialMask = false
    private var rotatesOnAutoEOI = false
    /// The input of lowest priority; the next one up is of highest.
    private var lowest: UInt8 = 7
    /// OCW3 RIS: reads give ISR and not IRR.
    private var readsISR = false
    /// OCW3 P: the next read is a poll.
    private var pollPending = false

    private enum Initialization: Hashable { case done, icw2, icw3, icw4 }
    private var expects = Initialization.done
    private var wantsICW4 = false

    /// The SP/EN pin: high on a master.
    private let isMaster: Bool

    /// - Parameters:
    ///   - isMaster: whether ICW3 names this chip's slaves, or its own identity as one.
    ///   - elcrMask: the inputs whose ELCR bit can be set.
    public init(isMaster: Bool = true, elcrMask: UInt8 = 0xFF) {
        self.isMaster = isMaster
        self.elcrMask = elcrMask
    }

    private var levelInputs: UInt8 { ltim ? 0xFF : elcr }

    /// The interrupt request register: latched edges, and level inputs that are high.
    public var irr: UInt8 { (edges & ~levelInputs) | (inputs & levelInputs) }

    // MARK: Pins

    /// Drives one input, 0-7; higher bits of the number are ignored.
    public mutating func setInput(_ number: UInt8, _ isHigh: Bool) {
        let bit: UInt8 = 1 << (number & 7)
        if isHigh {
            if inputs & bit == 0 { edges |= bit }
            inputs |= bit
        } else {
            inputs &= ~bit
        }
    }

    /// Drives an input that a slave's output is wired to: a request the slave withdraws is gone.
    public mutating func setCascadeInput(_ number: UInt8, _ isHigh: Bool) {
        setInput(number, isHigh)
        if !isHigh { edges &= ~(1 << (number & 7)) }
    }

    /// INT. The one place that decides which request, if any, is put to the processor.
    public var output: Bool { pendingInput != nil }

    /// The unmasked request of highest priority, unless something in service forbids it.
    private var pendingInput: UInt8? {
        let candidates = irr & ~imr
        guard candidates != 0, hasVectors else { return nil }
        // Special mask mode: masking an input in service lets lower ones through.
        let inService = isSpecialMask ? isr & ~imr : isr
        for step in UInt8(1)...8 {
            let number = (lowest &+ step) & 7
            let bit: UInt8 = 1 << number
            if candidates & bit != 0, inService & bit == 0 || admitsAgain(bit) { return number }
            if inService & bit != 0 { return nil }
        }
        return nil
    }

    /// Special fully nested mode: a slave in service may interrupt again, for a higher input of its own.
    private func admitsAgain(_ bit: UInt8) -> Bool {
        isSpecialFullyNested && isMaster && !isSingle && icw3 & bit != 0
    }

    /// The INTA sequence: moves the pending request into service.
    ///
    /// - Returns: the input and its vector. With nothing pending, input 7 and its vector, and nothing
    ///   goes into service: the spurious interrupt.
    public mutating func acknowledge() -> (input: UInt8, vector: UInt8, isSpurious: Bool) {
        guard let number = pendingInput else { return (7, vectorBase | 7, true) }
        let bit: UInt8 = 1 << number
        edges &= ~bit
        if isAutoEOI {
            if rotatesOnAutoEOI { lowest = number }
        } else {
            isr |= bit
        }
        return (number, vectorBase | number, false)
    }

    // MARK: Registers

    /// Reads at A0 = 0 (`address` false: IRR, ISR) or A0 = 1 (IMR); after OCW3's poll command, at either, the
    /// poll word. Side effects: a poll acknowledges.
    public mutating func read(address: Bool) -> UInt8 {
        if pollPending {
            pollPending = false
            guard pendingInput != nil else { return 0 }
            return 0x80 | acknowledge().input
        }
        if address { return imr }
        return readsISR ? isr : irr
    }

    /// Writes at A0 = 0 (ICW1, OCW2, OCW3) or A0 = 1 (ICW2-4, OCW1).
    public mutating func write(_ value: UInt8, address: Bool) {
        if address {
            writeA1(value)
        } else if value & 0x10 != 0 {
            writeICW1(value)
        } else if value & 0x08 != 0 {
            writeOCW3(value)
        } else {
            writeOCW2(value)
        }
    }

    /// ```
    ///  7 6 5   4   3    2    1    0
    /// (8085)   1  LTIM (ADI) SNGL IC4
    /// ```
    private mutating func writeICW1(_ value: UInt8) {
        // The edge sense circuit is reset: an input that is high must fall and rise again.
        edges = 0
        imr = 0
        isr = 0
        lowest = 7
        isSpecialMask = false
        readsISR = false
        pollPending = false
        rotatesOnAutoEOI = false
        isAutoEOI = false
        isSpecialFullyNested = false
        ltim = value & 0x08 != 0
        isSingle = value & 0x02 != 0
        wantsICW4 = value & 0x01 != 0
        hasVectors = false
        expects = .icw2
    }

    private mutating func writeA1(_ value: UInt8) {
        switch expects {
        case .icw2:
            vectorBase = value & 0xF8
            hasVectors = true
            expects = !isSingle ? .icw3 : wantsICW4 ? .icw4 : .done
        case .icw3:
            icw3 = value
            expects = wantsICW4 ? .icw4 : .done
        case .icw4:
            isAutoEOI = value & 0x02 != 0
            isSpecialFullyNested = value & 0x10 != 0
            expects = .done
        case .done:
            imr = value
        }
    }

    /// ```
    ///  7  6   5   4 3  2 1 0
    ///  R  SL EOI  0 0 [ L   ]
    /// ```
    private mutating func writeOCW2(_ value: UInt8) {
        let level = value & 7
        switch value >> 5 {
        case 0b001: _ = endHighestInService()
        case 0b011: isr &= ~(1 << level)
        case 0b101: if let ended = endHighestInService() { lowest = ended }
        case 0b111:
            isr &= ~(1 << level)
            lowest = level
        case 0b100: rotatesOnAutoEOI = true
        case 0b000: rotatesOnAutoEOI = false
        case 0b110: lowest = level
        default: break
        }
    }

    /// Non-specific EOI. In special mask mode it passes over the masked ones.
    private mutating func endHighestInService() -> UInt8? {
        let inService = isSpecialMask ? isr & ~imr : isr
        for step in UInt8(1)...8 {
            let number = (lowest &+ step) & 7
            if inService >> number & 1 != 0 {
                isr &= ~(1 << number)
                return number
            }
        }
        return nil
    }

    /// ```
    ///  7   6   5   4 3  2  1   0
    ///  0 ESMM SMM  0 1  P  RR RIS
    /// ```
    private mutating func writeOCW3(_ value: UInt8) {
        if value & 0x40 != 0 { isSpecialMask = value & 0x20 != 0 }
        if value & 0x04 != 0 { pollPending = true }
        if value & 0x02 != 0 { readsISR = value & 0x01 != 0 }
    }

    /// Sets ELCR. Bits that this chip does not have stay 0.
    public mutating func writeELCR(_ value: UInt8) { elcr = value & elcrMask }
}
