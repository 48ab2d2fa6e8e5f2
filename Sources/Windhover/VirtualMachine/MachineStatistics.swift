internal import Machine
internal import VMCore

/// Numbers of one life of a machine, from its start to when they were asked for.
public struct MachineStatistics: Sendable {
    /// Times that a virtual CPU left the guest.
    public let exits: UInt64
    /// Instructions of the guest's; 0 on engines that do not count.
    public let instructions: UInt64
    /// Counts of each virtio device, in the guest's order.
    public let devices: [(kind: String, counts: [String: UInt64])]

    init(_ machine: GuestMachine) {
        let counts = machine.statistics
        exits = RunStatistics.Exits(counts).total
        instructions = counts.instructions
        devices = machine.deviceStatistics.map { ($0.kind, $0.counts) }
    }
}
