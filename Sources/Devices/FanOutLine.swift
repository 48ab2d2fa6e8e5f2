public import VMCore

/// A wire that forks: an ISA interrupt, which reaches both the 8259A pair and the I/O APIC.
public final class FanOutLine: InterruptLine {
    private let branches: [any InterruptLine]

    public init(_ branches: [any InterruptLine]) { self.branches = branches }

    public func setLevel(_ isHigh: Bool) {
        for branch in branches { branch.setLevel(isHigh) }
    }
}
