internal import Synchronization
public import VMCore

/// The local APICs of a machine and the way of interrupts between them: from processor to processor, and as messages from
/// an I/O APIC or a device.
///
/// ## Locks
/// Each local APIC has one of its own, taken for one register access or one delivery. No thread ever holds two of them: a
/// sender's is let go before its command is carried to the targets, and before an EOI is told to the I/O APIC, whose own
/// lock is held when it sends. So the order is device, interrupt controller, local APIC, and an alarm's inside that.
public final class InterruptFabric: InterruptMessageSink {
    let units: [LocalAPICUnit]
    private let listener = Mutex<(any EndOfInterruptListener)?>(nil)
    /// Where the search for the lowest priority starts, so that equals take turns.
    private let turn = Atomic<Int>(0)

    /// - Parameters:
    ///   - attentions: the vCPUs' words, by index, which is also the APIC ID; 0's processor is the boot processor.
    ///   - clock: what the timers count by.
    ///   - alarms: calls at a timer's deadline, on a thread of its own; nil where each vCPU looks at `deadline` itself,
    ///     as with a clock that counts instructions.
    public init(
        attentions: [Attention], clock: any ProcessorClock, alarms: (any AlarmService)?, physicalAddressBits: UInt8 = 40
    ) {
        units = attentions.enumerated().map { index, attention in
            LocalAPICUnit(
                LocalAPIC(
                    id: UInt32(truncatingIfNeeded: index), isBootstrap: index == 0,
                    physicalAddressBits: physicalAddressBits),
                attention: attention, clock: clock, alarms: alarms)
        }
    }

    /// The local APIC of one processor, for its vCPU; nil past the last.
    public func processor(_ index: Int) -> ProcessorInterrupts? {
        units.indices.contains(index) ? ProcessorInterrupts(fabric: self, unit: units[index]) : nil
    }

    // MARK: The machine's side

    /// Connects the 8259A pair to the boot processor's INTR, by its LINT0.
    public func connect(externalInterrupts source: any ExternalInterruptSource) {
        units.first?.connect(source)
    }

    /// The pair's pin may have changed. Any thread, also with the pair's lock held.
    public func externalInterruptsChanged() { units.first?.externalInterruptsChanged() }

    /// Connects who hears of EOIs of level-triggered interrupts.
    ///
    /// Nothing need be known of the I/O APIC's routes for it: an interrupt came with its trigger mode, and TMR keeps it.
    public func connect(endOfInterrupt listener: any EndOfInterruptListener) {
        self.listener.withLock { $0 = listener }
    }

    /// Lets go of both.
    public func disconnect() {
        units.first?.disconnect()
        listener.withLock { $0 = nil }
    }

    /// Delivers a message-signalled interrupt. One that names no local APIC is dropped. Source: [SDM3 §11.11].
    public func send(_ message: InterruptMessage) {
        guard let command = InterruptCommand(message) else { return }
        deliver(command, from: nil)
    }

    // MARK: Delivery

    /// Carries out what a chip asked for, with no lock held.
    func perform(_ effects: LocalAPIC.Effects, from sender: LocalAPICUnit) {
        if let command = effects.command { deliver(command, from: sender) }
        if let vector = effects.endOfInterrupt { listener.withLock { $0 }?.endOfInterrupt(vector: vector) }
    }

    /// Brings a command to every local APIC that it names. Source: [SDM3 §11.6.2].
    private func deliver(_ command: InterruptCommand, from sender: LocalAPICUnit?) {
        if command.deliveryMode == .lowestPriority, command.shorthand != .toSelf {
            if let unit = lowestPriority(command, from: sender) { unit.accept(command) }
            return
        }
        switch command.shorthand {
        case .toSelf:
            sender?.accept(command)
        case .all:
            for unit in units { unit.accept(command) }
        case .allButSelf:
            for unit in units where unit !== sender { unit.accept(command) }
        case .none:
            if !command.isLogical, !command.isBroadcast {
                // IDs are indices. The field is wider than any machine.
                if command.destination < UInt32(units.count) {
                    units[Int(command.destination)].accept(command, ifMatching: true)
                }
                return
            }
            for unit in units { unit.accept(command, ifMatching: true) }
        }
    }

    /// Of the local APICs that a command names, and that take interrupts, the one of lowest processor priority; equals
    /// take turns. Source: [SDM3 §11.6.2.4].
    private func lowestPriority(_ command: InterruptCommand, from sender: LocalAPICUnit?) -> LocalAPICUnit? {
        let start = turn.load(ordering: .relaxed)
        var best: (priority: UInt8, index: Int)?
        for step in 0..<units.count {
            let index = (start &+ step) % units.count
            let unit = units[index]
            if command.shorthand == .allButSelf, unit === sender { continue }
            guard let priority = unit.priority(for: command) else { continue }
            if best.map({ priority < $0.priority }) ?? true { best = (priority, index) }
        }
        guard let best else { return nil }
        turn.store((best.index &+ 1) % units.count, ordering: .relaxed)
        return units[best.index]
    }
}
