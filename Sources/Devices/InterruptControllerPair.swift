import Synchronization
public import VMCore

/// The PC's two 8259As: the slave's output on the master's input 2, the master's on the boot processor's INTR.
///
/// Its registers are in three places, so it is three bus devices: `master` (0x20-0x21 on a PC), `slave`
/// (0xA0-0xA1) and `edgeLevelControl` (0x4D0-0x4D1), each of byte-wide registers.
///
/// Locks: it drives INTR with its own lock held, and `acknowledge` must be called with no vCPU lock held.
/// Source: [8259A]; ELCR and its fixed bits: [ICH9 §13.4.10] and [ICH9 §13.4.11].
public final class InterruptControllerPair: ExternalInterruptSource {
    private struct Chips {
        // The timer, the keyboard and the cascade are edge-triggered for good; so are the clock and the FPU error.
        var master = PIC8259(elcrMask: 0xF8)
        var slave = PIC8259(isMaster: false, elcrMask: 0xDE)
        var isHigh = false
    }

    private static let cascade: UInt8 = 2

    private let intr: any InterruptLine
    private let chips = Mutex(Chips())
    /// INTR's level for whoever asks between two guest instructions, without the lock.
    private let pending = Atomic<Bool>(false)

    /// - Parameter intr: what hears of changes of INTR; called with the controllers' lock held.
    public init(intr: any InterruptLine) { self.intr = intr }

    // MARK: Lines

    /// The wire to ISA interrupt `irq`; one that goes nowhere for the cascade (2) and for numbers above 15.
    ///
    /// All the wires given out for one number are the same wire: two sources need an OR of their own.
    public func line(irq: UInt32) -> any InterruptLine {
        guard irq < 16, irq != UInt32(Self.cascade) else { return UnconnectedLine() }
        return Line(pair: self, irq: UInt8(irq))
    }

    private final class Line: InterruptLine {
        private let pair: InterruptControllerPair
        private let irq: UInt8
        init(pair: InterruptControllerPair, irq: UInt8) {
            self.pair = pair
            self.irq = irq
        }
        func setLevel(_ isHigh: Bool) {
            pair.access { chips in
                if irq < 8 {
                    chips.master.setInput(irq, isHigh)
                } else {
                    chips.slave.setInput(irq &- 8, isHigh)
                }
            }
        }
    }

    // MARK: The processor's side

    public var isPending: Bool { pending.load(ordering: .acquiring) }

    /// The interrupt-acknowledge cycle.
    ///
    /// With nothing pending any more the vector is input 7's, of the master, or of the slave where only
    /// the slave's request went away; then nothing goes into service on that chip.
    public func acknowledge() -> UInt8 {
        access { chips in
            let (input, vector, isSpurious) = chips.master.acknowledge()
            guard !isSpurious, input == Self.cascade, chips.master.icw3 & 1 << Self.cascade != 0 else { return vector }
            let second = chips.slave.acknowledge().vector
            // INT falls during the cycle; it rises again, a new edge for the master, if the slave has more.
            chips.master.setCascadeInput(Self.cascade, false)
            return second
        }
    }

    /// Does something to the chips, then makes the wires between them and INTR follow.
    @discardableResult
    private func access<Result: Sendable>(_ body: (inout Chips) -> Result) -> Result {
        chips.withLock { chips in
            let result = body(&chips)
            chips.master.setCascadeInput(Self.cascade, chips.slave.output)
            let output = chips.master.output
            if output != chips.isHigh {
                chips.isHigh = output
                pending.store(output, ordering: .releasing)
                intr.setLevel(output)
            }
            return result
        }
    }

    // MARK: The bus's side

    /// The master's two registers.
    public var master: any BusDevice {
        Registers(
            pair: self,
            read: { chips, offset in chips.master.read(address: offset & 1 != 0) },
            write: { chips, offset, value in chips.master.write(value, address: offset & 1 != 0) })
    }

    /// The slave's two registers.
    public var slave: any BusDevice {
        Registers(
            pair: self,
            read: { chips, offset in chips.slave.read(address: offset & 1 != 0) },
            write: { chips, offset, value in chips.slave.write(value, address: offset & 1 != 0) })
    }

    /// The two edge/level control registers.
    public var edgeLevelControl: any BusDevice {
        Registers(
            pair: self,
            read: { chips, offset in offset & 1 == 0 ? chips.master.elcr : chips.slave.elcr },
            write: { chips, offset, value in
                if offset & 1 == 0 { chips.master.writeELCR(value) } else { chips.slave.writeELCR(value) }
            })
    }

    private final class Registers: BusDevice {
        typealias Read = @Sendable (inout Chips, UInt64) -> UInt8
        typealias Write = @Sendable (inout Chips, UInt64, UInt8) -> Void
        private let pair: InterruptControllerPair
        private let readRegister: Read
        private let writeRegister: Write

        init(pair: InterruptControllerPair, read: @escaping Read, write: @escaping Write) {
            self.pair = pair
            readRegister = read
            writeRegister = write
        }

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            UInt64(pair.access { readRegister(&$0, offset) })
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            pair.access { writeRegister(&$0, offset, UInt8(truncatingIfNeeded: value)) }
        }
    }
}
