import Testing

@testable import Windhover

@Suite struct GuestCommandLineTests {
    private func text(_ append: String = "", isLinux: Bool = true, isOurs: Bool = false, hasPCI: Bool = false, hasDisk: Bool = false, portCount: Int = 0) -> String {
        GuestCommandLine.text(
            isLinux: isLinux, isOurs: isOurs, hasPCI: hasPCI, hasDisk: hasDisk, portCount: portCount, append: append, terminal: nil)
    }

    @Test func whatLinuxGets() {
        #expect(text() == "console=ttyS0 panic=-1 pci=conf1,noearly")
        #expect(text(hasPCI: true) == "console=ttyS0 panic=-1")
        #expect(text(isOurs: true) == "console=ttyS0 panic=-1 pci=conf1,noearly quiet")
        #expect(text(isOurs: true, hasPCI: true, hasDisk: true) == "console=ttyS0 panic=-1 quiet windhover.root=auto")
        #expect(text(isOurs: true, hasPCI: true, portCount: 2) == "console=ttyS0 panic=-1 quiet windhover.ports=2")
        #expect(text(hasPCI: true, portCount: 2) == "console=ttyS0 panic=-1")
        #expect(text("a b", isLinux: false) == "a b")
    }

    /// A word of the user's stands for each of ours.
    @Test func theUserHasTheLastWord() {
        #expect(text("pci=off panic=5 console=hvc0") == "pci=off panic=5 console=hvc0")
        #expect(text("pci=conf2 debug", isOurs: true) == "console=ttyS0 panic=-1 pci=conf2 debug")
        #expect(text("pcie=off") == "console=ttyS0 panic=-1 pci=conf1,noearly pcie=off")
        #expect(text("windhover.exec=bHM=", isOurs: true, hasPCI: true, hasDisk: true) == "console=ttyS0 panic=-1 quiet windhover.exec=bHM=")
    }
}
