import Testing
@testable import Windhover

@testable import hover

@Suite struct ProgressBarTests {
    @Test func showsHowFar() {
        let line = ProgressBar.line(
            name: "linux", FetchProgress(step: .download, fraction: 0.5), columns: 80)
        #expect(line == "linux [####################....................]  50%  downloading")
    }

    @Test(arguments: [-1.0, 0, 0.001, 0.999, 1, 7])
    func neverWiderThanTheTerminal(fraction: Double) {
        for columns in 0...200 {
            for step in FetchProgress.Step.allCases {
                let line = ProgressBar.line(name: "linux", FetchProgress(step: step, fraction: fraction), columns: columns)
                #expect(line.count < max(1, columns))
            }
        }
    }
}

@Suite struct OutputTests {
    @Test func doctorIsAlignedAndPlainWithoutATerminal() {
        var facts = HostFacts()
        facts.flags = ["vmx"]
        facts.kvm = .missing
        let text = HostReport(facts).text(coloured: false)
        #expect(!text.contains("\u{1B}"))
        #expect(text.contains("FAIL  /dev/kvm"))
        #expect(text.contains("-> sudo modprobe kvm-intel"))
        #expect(HostReport(facts).text(coloured: true).contains("\u{1B}[31;1m"))
    }

    @Test func imagesAreATable() {
        let files = ImageFiles(kernel: "/c/vmlinuz", preparedKernel: nil, initrd: "/c/initrd.cpio")
        let image = Image(
            name: "linux", release: "6.1.0-1", version: "6.1.1-1", origin: "http://h/x.deb", files: files, size: 15 << 20)
        let text = ImagesCommand.table([image], total: 16 << 20, directory: "/c")
        #expect(text == """
            NAME   KIND            SIZE    FROM
            linux  kernel 6.1.0-1  15 MiB  http://h/x.deb

            16 MiB in /c

            """)
        #expect(ImagesCommand.table([], total: 0, directory: "/c").contains("hover images fetch linux"))
        let disk = Disk(name: "debian", path: "/c/disk.img", size: 2 << 30, allocated: 300 << 20, contents: "Debian bookworm, 137 packages")
        #expect(ImagesCommand.table([], disks: [disk], total: 300 << 20, directory: "/c") == """
            NAME    KIND           SIZE     FROM
            debian  disk of 2 GiB  300 MiB  Debian bookworm, 137 packages

            300 MiB in /c

            """)
    }
}
