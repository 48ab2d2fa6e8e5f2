/// Tells whether a guest is ready for input on its serial port.
///
/// A real line loses what arrives before anybody listens. A pipe's or a terminal's first bytes must not be lost, so a
/// byte is handed over only to a guest that shows, by how it uses the chip, that it means to read:
///
/// - it enabled the receive interrupt (IER.ERBFI), as every interrupt driver does in the end; or
/// - it polls: `pollsToOpen` reads of LSR that found no character and an idle transmitter, less the
///   characters written. A guest that only prints reads LSR once a character, so it never gets there; one that waits
///   for a key gets there in microseconds. Programming the chip again (IER, FCR, LCR, MCR) starts the count anew.
///
/// DTR without RTS holds input back: that is hardware flow control, and what Linux shows from the moment its console
/// is set up until somebody opens the terminal. Neither of them up means that the guest leaves them alone.
struct InputGate: Sendable {
    static let pollsToOpen = 16

    private var idlePolls = 0
    private(set) var isPolled = false

    /// LSR was read.
    mutating func sawLineStatus(_ status: UInt8) {
        let idle = UART16550.LSR.dr | UART16550.LSR.thre
        guard !isPolled, status & idle == UART16550.LSR.thre else { return }
        idlePolls &+= 1
        if idlePolls == Self.pollsToOpen { isPolled = true }
    }

    /// A character was written.
    mutating func sawTransmit() {
        if idlePolls > 0 { idlePolls &-= 1 }
    }

    /// A control register was written.
    mutating func sawProgramming() {
        idlePolls = 0
        isPolled = false
    }

    func isOpen(for chip: UART16550) -> Bool {
        guard chip.hasReceiveInterrupt || isPolled, !chip.isLoopback else { return false }
        return chip.modemOutputs != UART16550.MCR.dtr
    }
}
