import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Devices

/// What Linux's 8250 driver does to a port, access by access: detection, console set-up, opening, printing.
/// Source: Linux 6.1, drivers/tty/serial/8250/8250_port.c and serial_core.c.
private struct LinuxGuest {
    enum Kind: Equatable { case none, i8250, i16450, i16550, i16550A, other }

    let bench: SerialBench
    /// Called after every access: a host that is as quick as it can be.
    var afterAccess: () -> Void = {}

    func out(_ register: UInt64, _ value: UInt8) {
        bench.out(register, value)
        afterAccess()
    }

    func `in`(_ register: UInt64) -> UInt8 {
        defer { afterAccess() }
        return bench.in(register)
    }

    func clearFIFOs() {
        out(2, 0x01)
        out(2, 0x07)
        out(2, 0x00)
    }

    func divisor() -> UInt16 { UInt16(self.in(0)) | UInt16(self.in(1)) << 8 }
    func setDivisor(_ value: UInt16) {
        out(0, UInt8(truncatingIfNeeded: value))
        out(1, UInt8(truncatingIfNeeded: value >> 8))
    }

    func sizeFIFO() -> Int {
        let lcr = self.in(3)
        out(3, 0)
        let fcr = self.in(2)
        let mcr = self.in(4)
        out(2, 0x07)
        out(4, 0x10)
        out(3, 0x80)
        let old = divisor()
        setDivisor(1)
        out(3, 0x03)
        for value in UInt8.min ... .max { out(0, value) }
        var count = 0
        while count < 256, self.in(5) & 0x01 != 0 {
            _ = self.in(0)
            count += 1
        }
        out(2, fcr)
        out(4, mcr)
        out(3, 0x80)
        setDivisor(old)
        out(3, lcr)
        return count
    }

    func detect16550A() -> Kind {
        // An EFR behind DLAB, or behind LCR = BFh, would read 0.
        out(3, 0x80)
        if self.in(2) == 0 { return .other }
        out(3, 0xBF)
        if self.in(2) == 0 { return .other }
        // A National Super I/O shows MCR's LOOP bit in EXCR1.
        out(3, 0)
        let mcr = self.in(4)
        out(3, 0xE0)
        var excr = self.in(2)
        if (excr ^ mcr) & 0x10 == 0 {
            out(3, 0)
            out(4, mcr ^ 0x10)
            out(3, 0xE0)
            excr = self.in(2)
            out(3, 0)
            out(4, mcr)
            if (excr ^ mcr) & 0x10 != 0 { return .other }
        }
        // A 16750 has a 64-byte FIFO, seen in IIR bit 5.
        out(3, 0)
        out(2, 0x21)
        let iir1 = self.in(2) >> 5
        out(2, 0x01)
        out(3, 0x80)
        out(2, 0x21)
        let iir2 = self.in(2) >> 5
        out(2, 0x01)
        out(3, 0)
        if iir1 == 6, iir2 == 7 { return .other }
        // An XScale has IER bit 6.
        let ier = self.in(1)
        out(1, ier & ~0x40)
        if self.in(1) & 0x40 == 0 {
            out(1, ier | 0x40)
            if self.in(1) & 0x40 != 0 { return .other }
        }
        out(1, ier)
        return sizeFIFO() == 64 ? .other : .i16550A
    }

    func autoconfig() -> Kind {
        let ier = self.in(1)
        out(1, 0)
        let none = self.in(1) & 0x0F
        out(1, 0x0F)
        let all = self.in(1) & 0x0F
        out(1, ier)
        guard none == 0, all == 0x0F else { return .none }
        let mcr = self.in(4)
        let lcr = self.in(3)
        out(4, 0x1A)
        let status = self.in(6) & 0xF0
        out(4, mcr)
        guard status == 0x90 else { return .none }
        out(3, 0xBF)
        out(2, 0)
        out(3, 0)
        out(2, 0x01)
        let kind: Kind
        switch self.in(2) >> 6 {
        case 0:
            out(7, 0xA5)
            let first = self.in(7)
            out(7, 0x5A)
            kind = first == 0xA5 && self.in(7) == 0x5A ? .i16450 : .i8250
        case 2: kind = .i16550
        case 3: kind = detect16550A()
        default: kind = .none
        }
        out(3, lcr)
        out(4, mcr)
        clearFIFOs()
        _ = self.in(0)
        out(1, 0)
        return kind
    }

    func setTermios(ier: UInt8, mcr: UInt8) {
        out(1, ier)
        out(3, 0x93)
        setDivisor(1)
        out(3, 0x13)
        out(2, 0x01)
        out(2, 0x81)
        out(4, mcr)
    }

    func clearCauses() {
        _ = self.in(5)
        _ = self.in(0)
        _ = self.in(2)
        _ = self.in(6)
    }

    /// - Returns: what the driver's two tests of the transmitter interrupt find broken.
    func startup(mctrl: UInt8) -> (thre: Bool, txen: Bool) {
        clearFIFOs()
        clearCauses()
        #expect(self.in(5) != 0xFF)
        waitFor(0x20)
        out(1, 0x02)
        let first = self.in(2)
        out(1, 0)
        out(1, 0x02)
        let second = self.in(2)
        out(1, 0)
        out(3, 0x03)
        out(4, mctrl | 0x08)
        out(1, 0x02)
        let lsr = self.in(5)
        let iir = self.in(2)
        out(1, 0)
        clearCauses()
        return (first & 1 == 0 && second & 1 != 0, lsr & 0x40 != 0 && iir & 1 != 0)
    }

    /// Opens the terminal: starts the port, sets it up, raises DTR and RTS last.
    func open(mctrl: UInt8) {
        let broken = startup(mctrl: mctrl)
        #expect(!broken.thre)
        #expect(!broken.txen)
        setTermios(ier: 0x05, mcr: mctrl | 0x08)
        out(4, 0x0B)
    }

    func close() {
        out(4, 0x08)
        out(1, 0)
        out(4, 0)
        out(3, self.in(3) & ~0x40)
        clearFIFOs()
        _ = self.in(0)
    }

    func waitFor(_ bits: UInt8) {
        for _ in 0..<10_000 where self.in(5) & bits == bits { return }
        Issue.record("LSR never showed \(bits)")
    }

    /// A kernel message: interrupts off, a character at a time.
    func printk(_ text: String) {
        let ier = self.in(1)
        out(1, 0)
        for byte in text.utf8 {
            waitFor(0x20)
            out(0, byte)
        }
        waitFor(0x60)
        out(1, ier)
    }

    func earlyConsole(_ text: String) {
        out(3, 0x03)
        out(1, 0)
        out(2, 0)
        out(4, 0x03)
        out(3, 0x83)
        setDivisor(1)
        out(3, 0x03)
        for byte in text.utf8 {
            waitFor(0x20)
            out(0, byte)
        }
    }

    /// The interrupt handler, as long as the line is high.
    func handleInterrupts(received: inout [UInt8]) {
        var passes = 0
        while bench.line.isHigh, passes < 512 {
            passes += 1
            let iir = self.in(2)
            guard iir & 1 == 0 else { return }
            var status = self.in(5)
            var limit = 256
            while status & 0x11 != 0, limit > 0 {
                received.append(self.in(0))
                status = self.in(5)
                limit -= 1
            }
            _ = self.in(6)
        }
    }
}

@Suite struct Linux8250Tests {
    @Test func detectsA16550A() {
        #expect(LinuxGuest(bench: SerialBench()).autoconfig() == .i16550A)
    }

    @Test func detectsItWithTheSinkFullToo() {
        let bench = SerialBench(capacity: 0)
        bench.out(0, 0x41)
        #expect(LinuxGuest(bench: bench).autoconfig() == .i16550A)
    }

    @Test func sizesTheFIFO() {
        #expect(LinuxGuest(bench: SerialBench()).sizeFIFO() == 16)
    }

    @Test func findsTheTransmitterInterruptSound() {
        let guest = LinuxGuest(bench: SerialBench())
        _ = guest.autoconfig()
        let broken = guest.startup(mctrl: 0x01)
        #expect(!broken.thre && !broken.txen)
    }

    /// A host that has its input ready from the first instruction and offers it after every access: not a byte is
    /// lost or reordered through early console, detection, console set-up, opening, closing and opening again.
    @Test(arguments: [1, 7, 16, 100, 3_000])
    func inputTypedFromTheStartIsNotLost(count: Int) {
        let bench = SerialBench()
        let text = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        var pending = text[...]
        var guest = LinuxGuest(bench: bench)
        withoutActuallyEscaping({ pending = pending.dropFirst(bench.type(Array(pending.prefix(64)))) }) { feed in
            guest.afterAccess = feed
            guest.earlyConsole("early")
            #expect(guest.autoconfig() == .i16550A)
            guest.setTermios(ier: 0, mcr: 0x01)
            guest.printk("console")
            var received: [UInt8] = []
            for _ in 0..<3 {
                guest.open(mctrl: 0x01)
                guest.printk("opened")
                // Reads some of it, then lets go of the port with more waiting.
                guest.afterAccess = {}
                guest.handleInterrupts(received: &received)
                guest.afterAccess = feed
                guest.printk("busy")
                guest.close()
            }
            guest.open(mctrl: 0x01)
            while received.count < count, bench.line.isHigh || !pending.isEmpty {
                let before = received.count
                guest.handleInterrupts(received: &received)
                feed()
                guard received.count > before || bench.line.isHigh else { break }
            }
            let firstWrong = zip(received, text).enumerated().first { $1.0 != $1.1 }?.offset
            #expect(received.count == count)
            #expect(firstWrong == nil)
            guest.afterAccess = {}
        }
        #expect(String(decoding: bench.sink.bytes, as: UTF8.self) == "earlyconsole" + "openedbusyopenedbusyopenedbusy")
    }

    @Test func theInterruptedTransmitterDeliversAll() {
        let bench = SerialBench(capacity: 40)
        let guest = LinuxGuest(bench: bench)
        guest.open(mctrl: 0x01)
        var toSend = (0..<1_000).map { UInt8(truncatingIfNeeded: $0) }[...]
        var printed: [UInt8] = []
        bench.out(1, 0x07)
        while printed.count < 1_000 {
            while bench.line.isHigh {
                #expect(bench.in(2) & 0x0F == 0x02)
                guard bench.in(5) & 0x20 != 0 else { continue }
                for byte in toSend.prefix(16) { bench.out(0, byte) }
                toSend = toSend.dropFirst(16)
                if toSend.isEmpty { bench.out(1, 0x05) }
            }
            let taken = bench.sink.drain()
            guard !taken.isEmpty else { break }
            printed += taken
        }
        #expect(difference(of: printed, from: (0..<1_000).map { UInt8(truncatingIfNeeded: $0) }) == nil)
    }
}
