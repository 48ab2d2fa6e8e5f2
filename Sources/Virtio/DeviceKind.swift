/// The device types that there are models of. Source: [VIRTIO1.2 §5].
public enum DeviceKind: UInt32, Hashable, Sendable, CaseIterable {
    case net = 1
    case block = 2
    case console = 3
    case entropy = 4
    case balloon = 5
    case socket = 19
    case fileSystem = 26
}
