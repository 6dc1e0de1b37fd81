// What Nextflow makes of a process: groovy render.groovy MAIN.NF VARIABLES.JSON
// Prints as JSON the text of its script and its stub, and its outputs. Nextflow's language is Groovy, whose labels
// (`input:`, `script:`) are the sections of a process; only their order of evaluation is Nextflow's own.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.Phases

class Outputs extends Script {
    private List found = []
    List listed() { found }
    def run() { null }
    def val(text) { [val: text as String] }
    def path(text) { [path: text as String] }
    def path(Map options, text) { found << [options: options, parts: [path(text)]] }
    def eval(text) { [eval: text as String] }
    def tuple(Map options, Object... parts) { found << [options: options, parts: parts as List] }
}

// The name of an output (`emit: calls`) is a bare word.
class Words extends Binding {
    Object getVariable(String name) { hasVariable(name) ? super.getVariable(name) : name }
}

def file = new File(args[0])
// The syntax of the whole file, but for the line breaks that Nextflow allows inside of "${...}".
def unit = new CompilationUnit()
unit.addSource(file.name, file.text.replaceAll(/container "[^"]*"/) { it.replaceAll(/\s*\n\s*/, ' ') })
unit.compile(Phases.CONVERSION)
if (args.length == 1) {
    println JsonOutput.toJson([:])
    return
}
def sections = [:].withDefault { '' }
def section = 'head'
file.eachLine { line ->
    def label = line =~ /^    (input|output|when|script|stub):$/
    if (label) { section = label[0][1] } else if (line != '}') { sections[section] += line + '\n' }
}
def words = new Words()
new JsonSlurper().parse(new File(args[1])).each { name, value -> words.setVariable(name, value) }
def shell = new GroovyShell(words)
// In a method: a script of Groovy's has a variable `args` already.
def text = { shell.evaluate("Object text() {\n${it}\n}\ntext()") as String }
def script = text(sections.script)
def stub = text(sections.stub)
def configuration = new CompilerConfiguration(scriptBaseClass: Outputs.name)
def outputs = new GroovyShell(getClass().classLoader, words, configuration).parse(sections.output)
outputs.run()
println JsonOutput.toJson([script: script, stub: stub, outputs: outputs.listed()])
