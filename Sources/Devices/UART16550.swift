/// NS16550A universal asynchronous receiver/transmitter: registers, two 16-character FIFOs, interrupts, loop-back.
///
/// The chip knows no time: whoever holds it moves characters between its FIFOs and the line, and a character moved is
/// a character sent. So the divisor sets no speed, and the character time-out is due at once whenever
/// characters wait below the trigger level.
///
/// ```
///      read        write       DLAB = 1
/// 0    RBR         THR         DLL       receiver buffer, transmitter holding, divisor latch low
/// 1    IER         IER         DLM       0 ERBFI  1 ETBEI  2 ELSI  3 EDSSI
/// 2    IIR         FCR                   FCR: 0 FIFO enable  1 clear RCVR  2 clear XMIT  7:6 trigger
/// 3    LCR         LCR                   6 break control  7 DLAB
/// 4    MCR         MCR                   0 DTR  1 RTS  2 OUT1  3 OUT2  4 LOOP
/// 5    LSR         -                     0 DR  1 OE  2 PE  3 FE  4 BI  5 THRE  6 TEMT  7 FIFO error
/// 6    MSR         -                     0 DCTS  1 DDSR  2 TERI  3 DDCD  4 CTS  5 DSR  6 RI  7 DCD
/// 7    SCR         SCR
/// ```
/// Source: [NS16550] table II and the registers' descriptions.
///
/// Not emulated: baud rate, word length, parity and stop bits (a character is always 8 bits and never wrong, so PE
/// and FE stay clear), the transmitter shift register (THRE and TEMT are one), break control (LCR bit 6 is
/// stored and sends nothing), OUT2 as a gate of the interrupt, the DMA signals of FCR bit 3, writes to LSR and MSR, which are for the factory.
public struct UART16550: Sendable {
    /// Characters each FIFO holds.
    public static let fifoDepth = 16

    public enum IER {
        /// Received data available, and the character time-out.
        public static let erbfi: UInt8 = 0x01
        /// Transmitter holding register empty.
        public static let etbei: UInt8 = 0x02
        /// Receiver line status.
        public static let elsi: UInt8 = 0x04
        /// Modem status.
        public static let edssi: UInt8 = 0x08
    }

    /// Interrupt identification, highest priority first; bits 7:6 are set while the FIFOs are enabled.
    public enum IIR {
        public static let lineStatus: UInt8 = 0x06
        public static let receivedData: UInt8 = 0x04
        public static let characterTimeout: UInt8 = 0x0C
        public static let transmitterEmpty: UInt8 = 0x02
        public static let modemStatus: UInt8 = 0x00
        public static let none: UInt8 = 0x01
        public static let fifosEnabled: UInt8 = 0xC0
    }

    public enum FCR {
        public static let enable: UInt8 = 0x01
        public static let clearReceiver: UInt8 = 0x02
        public static let clearTransmitter: UInt8 = 0x04
    }

    public enum LCR {
        public static let breakControl: UInt8 = 0x40
        public static let dlab: UInt8 = 0x80
    }

    public enum MCR {
        public static let dtr: UInt8 = 0x01
        public static let rts: UInt8 = 0x02
        public static let out1: UInt8 = 0x04
        public static let out2: UInt8 = 0x08
        public static let loop: UInt8 = 0x10
    }

    public enum LSR {
        public static let dr: UInt8 = 0x01
        public static let oe: UInt8 = 0x02
        public static let pe: UInt8 = 0x04
        public static let fe: UInt8 = 0x08
        public static let bi: UInt8 = 0x10
        public static let thre: UInt8 = 0x20
        public static let temt: UInt8 = 0x40
        public static let fifoError: UInt8 = 0x80
    }

    public enum MSR {
        public static let cts: UInt8 = 0x10
        public static let dsr: UInt8 = 0x20
        public static let ri: UInt8 = 0x40
        public static let dcd: UInt8 = 0x80
    }

    /// A flag of a received character, in an entry's upper byte: it came round the loop, not from the line.
    private static let looped: UInt16 = 0x8000

    private var ier: UInt8 = 0
    private var fifosEnabled = false
    /// Characters that make "received data available", in FIFO mode.
    private var trigger = 1
    private var lcr: UInt8 = 0
    private var mcr: UInt8 = 0
    private var scr: UInt8 = 0
    /// 9,600 baud from the PC's 1.8432 MHz, as firmware leaves it; the chip itself starts with anything.
    private var divisor: UInt16 = 12
    /// OE, PE, FE and BI until LSR is read.
    private var lineErrors: UInt8 = 0
    /// Received characters with an error that LSR has not shown yet, being below the top of the FIFO.
    private var hiddenErrors = 0
    /// MSR bits 0-3 until MSR is read.
    private var modemDeltas: UInt8 = 0
    /// What the line drives: CTS, DSR, RI, DCD where MSR has them.
    private var modemInputs: UInt8
    /// The transmitter became empty and nobody has acknowledged it.
    private var transmitterInterrupt = false
    private var receiver = CharacterFIFO()
    private var transmitter = CharacterFIFO()

    /// As after master reset. Source: [NS16550] table I.
    /// - Parameter modemInputs: MSR bits 4-7: what is at the other end is on, and ready.
    public init(modemInputs: UInt8 = MSR.cts | MSR.dsr | MSR.dcd) {
        self.modemInputs = modemInputs & 0xF0
    }

    // MARK: The processor's side

    /// Reads one register.
    ///
    /// - Parameter register: offset 0-7; higher bits are ignored.
    /// Side effects: RBR removes the character read and shows the next one's errors; IIR acknowledges an empty
    /// transmitter if that is what it reports; LSR clears its error bits, MSR its deltas.
    /// Complexity: O(1), no allocation.
    public mutating func read(register: UInt8) -> UInt8 {
        switch register & 7 {
        case 0: return isDLAB ? UInt8(truncatingIfNeeded: divisor) : readReceiver()
        case 1: return isDLAB ? UInt8(truncatingIfNeeded: divisor >> 8) : ier
        case 2: return readIdentification()
        case 3: return lcr
        case 4: return mcr
        case 5: return readLineStatus()
        case 6:
            defer { modemDeltas = 0 }
            return modemLines | modemDeltas
        default: return scr
        }
    }

    /// Writes one register.
    ///
    /// - Parameter register: offset 0-7; higher bits are ignored.
    /// Side effects: THR fills the transmitter, or in loop-back the receiver; what does not fit is lost, as there.
    /// Complexity: O(1), no allocation.
    public mutating func write(_ value: UInt8, register: UInt8) {
        switch register & 7 {
        case 0:
            if isDLAB { divisor = divisor & 0xFF00 | UInt16(value) } else { writeTransmitter(value) }
        case 1:
            if isDLAB { divisor = divisor & 0x00FF | UInt16(value) << 8 } else { writeInterruptEnable(value) }
        case 2: writeFIFOControl(value)
        case 3: lcr = value
        case 4:
            let before = modemLines
            mcr = value & 0x1F
            noteModemChange(from: before)
        case 5, 6: break
        default: scr = value
        }
    }

    /// INTR as it reaches the bus: silent in loop-back.
    ///
    /// A PC's adapter also gates it with OUT2. Virtual machines have never done so, and there are kernels written for them
    /// that do not set OUT2 and expect interrupts: it is not a gate here.
    /// Source: [NS16550] modem control register, bit 4; the adapter's gate: [IBM-AT] serial adapter.
    public var interrupt: Bool {
        mcr & MCR.loop == 0 && pendingInterrupt != IIR.none
    }

    /// The interrupt of highest priority, as IIR bits 0-3. Source: [NS16550] table IV.
    private var pendingInterrupt: UInt8 {
        if ier & IER.elsi != 0, lineErrors != 0 { return IIR.lineStatus }
        if ier & IER.erbfi != 0, !receiver.isEmpty {
            return !fifosEnabled || receiver.count >= trigger ? IIR.receivedData : IIR.characterTimeout
        }
        if ier & IER.etbei != 0, transmitterInterrupt { return IIR.transmitterEmpty }
        if ier & IER.edssi != 0, modemDeltas != 0 { return IIR.modemStatus }
        return IIR.none
    }

    // MARK: The line's side

    /// Characters that wait to be sent.
    public var transmitCount: Int { transmitter.count }

    /// The character `index` places behind the first that waits; 0 where there is none.
    public func transmitCharacter(at index: Int) -> UInt8 {
        index >= 0 && index < transmitter.count ? UInt8(truncatingIfNeeded: transmitter[index]) : 0
    }

    /// Takes the first `count` characters off the transmitter: they are sent.
    public mutating func transmitted(_ count: Int) {
        guard count > 0, !transmitter.isEmpty else { return }
        transmitter.removeFirst(count)
        if transmitter.isEmpty { transmitterInterrupt = true }
    }

    /// Characters received and not read yet.
    public var receivedCount: Int { receiver.count }

    /// Characters that `receive` has room for now. None in loop-back: the line is disconnected.
    public var receiveRoom: Int { isLoopback ? 0 : depth &- min(depth, receiver.count) }

    /// Receives one character.
    /// - Returns: false in loop-back, where the line is not heard. Without room the character overruns.
    @discardableResult
    public mutating func receive(_ character: UInt8) -> Bool {
        guard !isLoopback else { return false }
        push(UInt16(character))
        return true
    }

    /// Receives a break: a zero character with BI.
    /// - Returns: false in loop-back.
    @discardableResult
    public mutating func receiveBreak() -> Bool {
        guard !isLoopback else { return false }
        push(UInt16(LSR.bi) << 8)
        return true
    }

    /// Drives CTS, DSR, RI and DCD: bits 4-7, as MSR shows them.
    public mutating func setModemInputs(_ inputs: UInt8) {
        let before = modemLines
        modemInputs = inputs & 0xF0
        noteModemChange(from: before)
    }

    // MARK: What a line discipline needs to know

    /// MCR bit 4.
    public var isLoopback: Bool { mcr & MCR.loop != 0 }
    /// MCR bits 0 and 1: the guest's DTR and RTS.
    public var modemOutputs: UInt8 { mcr & (MCR.dtr | MCR.rts) }
    /// IER bit 0.
    public var hasReceiveInterrupt: Bool { ier & IER.erbfi != 0 }
    /// LCR bit 7: offsets 0 and 1 are the divisor.
    public var isDLAB: Bool { lcr & LCR.dlab != 0 }

    /// Whether writing `value` to FCR discards what was received.
    /// Changing modes clears the FIFOs; the other bits only count with bit 0 set.
    /// Source: [NS16550] FIFO control register, bits 0 and 1.
    public func clearsReceiver(fcr value: UInt8) -> Bool {
        (value & FCR.enable != 0) != fifosEnabled || value & 3 == FCR.enable | FCR.clearReceiver
    }

    /// Takes back the characters that came from the line and have not been read, oldest first. Breaks are dropped.
    mutating func withdrawReceived() -> CharacterFIFO {
        var fromLine = CharacterFIFO()
        var fromLoop = CharacterFIFO()
        while let entry = receiver.popFirst() {
            if entry & Self.looped != 0 { fromLoop.append(entry) } else if entry >> 8 == 0 { fromLine.append(entry) }
        }
        receiver = fromLoop
        hiddenErrors = 0
        return fromLine
    }

    // MARK: Registers

    private var depth: Int { fifosEnabled ? Self.fifoDepth : 1 }

    private mutating func readReceiver() -> UInt8 {
        guard let entry = receiver.popFirst() else { return 0 }
        let errors = receiver.isEmpty ? 0 : Self.errors(of: receiver[0])
        if errors != 0 {
            lineErrors |= errors
            hiddenErrors &-= 1
        }
        return UInt8(truncatingIfNeeded: entry)
    }

    private static func errors(of entry: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: entry >> 8) & LSR.bi }

    private mutating func push(_ entry: UInt16) {
        if receiver.count >= depth {
            // In FIFO mode the newcomer is lost, in character mode the one that waits.
            // Source: [NS16550] line status register, bit 1.
            lineErrors |= LSR.oe
            guard !fifosEnabled else { return }
            receiver.removeAll()
        }
        receiver.append(entry)
        let errors = Self.errors(of: entry)
        guard errors != 0 else { return }
        if receiver.count == 1 { lineErrors |= errors } else { hiddenErrors &+= 1 }
    }

    private mutating func writeTransmitter(_ value: UInt8) {
        transmitterInterrupt = false
        if isLoopback {
            push(UInt16(value) | Self.looped)
            transmitterInterrupt = transmitter.isEmpty
        } else {
            // Full: a FIFO drops the newcomer, the holding register is overwritten.
            if !fifosEnabled { transmitter.removeAll() }
            transmitter.append(UInt16(value))
        }
    }

    private mutating func writeInterruptEnable(_ value: UInt8) {
        let enabled = value & ~ier
        ier = value & 0x0F
        // Enabling it while the transmitter is empty asks at once. Source: [NS16550] FIFO interrupt mode operation.
        if enabled & IER.etbei != 0, transmitter.isEmpty { transmitterInterrupt = true }
    }

    private mutating func readIdentification() -> UInt8 {
        let pending = pendingInterrupt
        if pending == IIR.transmitterEmpty { transmitterInterrupt = false }
        return pending | (fifosEnabled ? IIR.fifosEnabled : 0)
    }

    private mutating func writeFIFOControl(_ value: UInt8) {
        let enable = value & FCR.enable != 0
        let changesMode = enable != fifosEnabled
        if clearsReceiver(fcr: value) {
            receiver.removeAll()
            hiddenErrors = 0
            // The characters they belonged to are gone; an overrun happened nevertheless.
            lineErrors &= LSR.oe
        }
        if changesMode || enable && value & FCR.clearTransmitter != 0, !transmitter.isEmpty {
            transmitter.removeAll()
            transmitterInterrupt = true
        }
        fifosEnabled = enable
        guard enable else {
            trigger = 1
            return
        }
        switch value >> 6 {
        case 0: trigger = 1
        case 1: trigger = 4
        case 2: trigger = 8
        default: trigger = 14
        }
    }

    private mutating func readLineStatus() -> UInt8 {
        var status = lineErrors
        if !receiver.isEmpty { status |= LSR.dr }
        if transmitter.isEmpty { status |= LSR.thre | LSR.temt }
        if fifosEnabled, lineErrors & ~LSR.oe != 0 || hiddenErrors > 0 { status |= LSR.fifoError }
        lineErrors = 0
        return status
    }

    /// MSR bits 4-7. In loop-back the outputs come back: RTS as CTS, DTR as DSR, OUT1 as RI, OUT2 as DCD.
    /// Source: [NS16550] modem control register, bit 4.
    private var modemLines: UInt8 {
        guard isLoopback else { return modemInputs }
        var lines: UInt8 = 0
        if mcr & MCR.rts != 0 { lines |= MSR.cts }
        if mcr & MCR.dtr != 0 { lines |= MSR.dsr }
        if mcr & MCR.out1 != 0 { lines |= MSR.ri }
        if mcr & MCR.out2 != 0 { lines |= MSR.dcd }
        return lines
    }

    /// Sets the deltas: any change of CTS, DSR, DCD; of RI only its end. Source: [NS16550] modem status register.
    private mutating func noteModemChange(from before: UInt8) {
        let now = modemLines
        let changed = (before ^ now) & (MSR.cts | MSR.dsr | MSR.dcd)
        let ended = before & ~now & MSR.ri
        modemDeltas |= (changed | ended) >> 4
    }
}
