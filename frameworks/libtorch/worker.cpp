// The LibTorch worker: docs/protocol.md in C++. It loads a version, puts parameters in, and runs the version's own
// functions on given arrays. LibTorch's layouts are the canonical ones, so nothing is permuted.

#include <dlfcn.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>
#include <vector>

#include "channel.hpp"
#include "errors.hpp"
#include "recording.hpp"
#include "tensors.hpp"
#include "version.hpp"

using nlohmann::json;
using tensors::Tensors;
using torch::Tensor;

namespace {

constexpr auto LABELS = "labels";  // what else is in a batch are the inputs, under whatever name

int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }  // ns

double since(int64_t begin) { return (now() - begin) * 1e-9; }

/// Seconds that all threads of this process have worked.
double worked_s() {
    timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return spent.tv_sec + spent.tv_nsec * 1e-9;
}

/// Seconds that reading a result takes beyond what reading it once more takes: none, if a fence has waited for it.
double late(const Tensor& result) {
    if (!result.defined()) return 0;
    auto begin = now();
    result.to(torch::kCPU, torch::kFloat64);
    auto read = now();
    result.to(torch::kCPU, torch::kFloat64);
    return std::max(0.0, ((read - begin) - (now() - read)) * 1e-9);
}

/// A version that does not compile: `line` is of its file.
struct CompileError : std::runtime_error {
    CompileError(const std::string& message, json line, std::string said)
        : std::runtime_error(message), line(std::move(line)), said(std::move(said)) {}
    json line;
    std::string said;
};

class Session {
  public:
    explicit Session(Channel& channel) : channel_(channel) {}

    std::string path, library;  // of the version, and of what was compiled from it

    json hello() {
        if (auto threads = std::getenv("ROSETTA_THREADS"); threads && std::atoi(threads))
            torch::set_num_threads(std::atoi(threads));
        auto started = std::getenv("ROSETTA_STARTED");
        return {{"protocol", 1},
                {"version", TORCH_VERSION},
                {"device", torch::cuda::is_available() ? "cuda" : "cpu"},
                {"threads", torch::get_num_threads()},
                {"import_s", started ? since(std::atoll(started)) : 0.0}};
    }

    // -- the version --------------------------------------------------------------------------------------------------

    json open(const json& args) {
        version_.reset();
        prepared_.clear(), given_.clear(), working_ = {};
        path = args.at("version"), library = "";
        dtype_ = args.at("dtype") == "float64" ? torch::kFloat64 : torch::kFloat32;
        torch::set_default_dtype(torch::scalarTypeToTypeMeta(dtype_));
        trains_ = args.value("trains", true);
        canonical_names_.clear(), recurrent_.clear();
        if (auto names = args.value("names", json()); names.is_object())
            for (auto& [canonical, native] : names.items()) canonical_names_[native] = canonical;
        expected_ = json::object();
        for (auto& layer : args.at("layers"))
            for (auto& [name, spec] : layer.at("parameters").items()) {
                expected_[layer.at("name").get<std::string>() + "." + name] = spec.at("shape");
                if (spec.contains("gates")) recurrent_.insert(layer.at("name").get<std::string>());
            }
        auto compiled = compile(args.at("constants"));
        // A copy of its own: what is loaded twice from one file keeps the first one's variables.
        library = std::filesystem::absolute("version-" + std::to_string(++opened_) + ".so");
        std::filesystem::copy_file(compiled, library);
        void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!handle) throw std::runtime_error(dlerror());
        version_.reset(reinterpret_cast<Version* (*)()>(dlsym(handle, "rosetta_version"))());
        declared_ = version_->constants();
        json constants;
        for (auto& name : args.at("constants")) constants[name] = declared_.value(name.get<std::string>(), json());
        return {{"constants", constants}};
    }

    json create(const json& args) {
        auto constants = declared_;
        if (auto given = args.value("constants", json()); given.is_object()) constants.update(given);
        version().set_constants(constants);
        torch::manual_seed(args.at("seed").get<int64_t>());
        version().build_model();
        json shapes = json::object();
        auto found = parameters();
        for (auto& [name, tensor] : found) shapes[name] = tensor.sizes().vec();
        if (auto given = args.value("parameters", json()); given.is_string() && shapes == expected_) {
            torch::NoGradGuard guard;
            for (auto& [name, tensor] : tensors::load(given)) found.at(name).copy_(tensor);
        }
        if (trains_) version().make_optimizer();
        return {{"shapes", shapes}};
    }

    // -- arrays out ---------------------------------------------------------------------------------------------------

    json write_parameters(const json& args) { return save(args, parameters()); }

    /// Training mode with loss and gradients; of a version that does not train, evaluation mode without.
    json trace(const json& args) {
        auto [inputs, labels] = batch(args.at("batch"));
        auto [seen, order, logits] = record(inputs, trains_);
        Tensors arrays{{"logits", logits}};
        for (auto& [layer, one] : seen) {
            arrays["input/" + layer] = one.input;
            if (one.output.defined()) arrays["output/" + layer] = one.output;
        }
        json gradients = json::array();
        if (trains_) {
            model().train();
            model().zero_grad();
            auto loss = version().loss_fn(inputs, labels);
            loss.backward();
            arrays["loss"] = loss.detach();
            for (auto& item : model().named_parameters()) {
                if (!item.value().grad().defined()) continue;
                auto name = canonical(item.key());
                arrays["gradient/" + name] = item.value().grad().clone();
                gradients.push_back(name);
            }
            model().zero_grad();
        }
        save(args, arrays);
        return {{"layers", order}, {"gradients", gradients}};
    }

    json activations(const json& args) {
        auto seen = record(batch(args.at("batch")).first, args.at("training")).seen;
        Tensors arrays;
        for (auto& layer : args.at("layers"))
            if (auto one = seen.find(layer); one != seen.end()) arrays["input/" + one->first] = one->second.input;
        return save(args, arrays);
    }

    json predict(const json& args) {
        return save(args, {{"logits", forward(batch(args.at("batch")).first, false)}});
    }

    json evaluate(const json& args) {
        auto [inputs, labels] = batch(args.at("batch"));
        return {{"metric", version().evaluate(inputs, labels)}};
    }

    // -- training -----------------------------------------------------------------------------------------------------

    json apply(const json& args) {
        auto given = tensors::load(args.at("gradients"));
        for (int64_t number = 0; number < args.at("times"); ++number) {
            for (auto& item : model().named_parameters())
                item.value().mutable_grad() = given.at(canonical(item.key())).to(item.value(), false, true);
            version().optimizer().step();
            version().optimizer().zero_grad();
        }
        return save(args, parameters_and_state());
    }

    json train(const json& args) {
        auto given = tensors::load(args.at("batches"));
        auto [inputs, labels] = native(given);
        std::vector<Tensor> losses;
        for (int64_t number = 0; number < inputs.size(0); ++number)
            losses.push_back(version().train_step(inputs[number], labels[number]).to(torch::kFloat64));
        auto arrays = parameters_and_state();
        arrays["losses"] = torch::stack(losses);
        return save(args, arrays);
    }

    // -- data ---------------------------------------------------------------------------------------------------------

    json batches(const json& args) {
        torch::manual_seed(args.at("seed").get<int64_t>());
        version().load_data();
        Tensors arrays;
        for (int64_t epoch = 0; epoch < args.at("epochs"); ++epoch) {
            std::vector<Tensor> inputs, labels;
            std::vector<int64_t> sizes;
            version().batches(args.at("shuffle"), [&](Tensor x, Tensor y) {
                inputs.push_back(x), labels.push_back(y), sizes.push_back(y.size(0));
                return true;
            });
            auto number = "/" + std::to_string(epoch);
            arrays["sizes" + number] = torch::tensor(sizes, torch::kInt64);
            arrays["inputs" + number] = torch::cat(inputs);
            arrays[LABELS + number] = torch::cat(labels).to(torch::kInt64);
        }
        return save(args, arrays);
    }

    // -- time ---------------------------------------------------------------------------------------------------------

    json prepare(const json& args) {
        version().load_data();
        prepared_.clear();
        size_t count = args.at("count");
        int64_t wanted = constant("BATCH_SIZE");
        version().batches(true, [&](Tensor x, Tensor y) {
            if (y.size(0) == wanted) prepared_.emplace_back(x, y);
            return prepared_.size() < count;
        });
        if (prepared_.empty())
            throw std::runtime_error(
                "Expected at least one batch of " + std::to_string(wanted) + " examples. Received: none");
        auto name = [](const Tensor& tensor) {
            return std::string(tensor.scalar_type() == torch::kFloat64   ? "float64"
                               : tensor.scalar_type() == torch::kFloat32 ? "float32"
                                                                         : c10::toString(tensor.scalar_type()));
        };
        std::set<std::string> precisions;
        for (auto& [_, tensor] : parameters()) precisions.insert(name(tensor));
        return {{"batch_size", wanted},
                {"batches", prepared_.size()},
                {"parameters", precisions},
                {"inputs", name(prepared_[0].first)}};
    }

    json steps(const json& args) {
        int64_t count = args.at("count");
        synchronize();
        auto worked = worked_s();
        auto begin = now();
        Tensor loss;
        for (int64_t number = 0; number < count; ++number) {
            auto& [inputs, labels] = prepared_.at(number % prepared_.size());
            loss = version().train_step(inputs, labels);
        }
        synchronize();
        auto seconds = since(begin);
        return {{"seconds", seconds}, {"worked_s", worked_s() - worked}, {"late_s", late(loss)}};
    }

    /// Passes over the loader from its first batch on, which starts the clock and is not counted.
    json feed(const json& args) {
        int64_t count = args.at("count"), wanted = constant("BATCH_SIZE"), taken = -1, begin = 0;
        bool work = args.at("work");
        double worked = 0;
        Tensor loss;
        while (taken < count) {
            auto before = taken;
            version().batches(true, [&](Tensor x, Tensor y) {
                if (y.size(0) != wanted) return true;
                if (taken++ < 0) {
                    synchronize();
                    worked = worked_s(), begin = now();
                } else if (work) {
                    loss = version().train_step(x, y);
                }
                return taken < count;
            });
            if (taken == before) throw std::runtime_error("Expected full batches. Received: none");
        }
        synchronize();
        auto seconds = since(begin);
        return {{"seconds", seconds}, {"worked_s", worked_s() - worked}, {"late_s", late(loss)}};
    }

    json fit(int64_t request) {
        version().load_data();
        int64_t epochs = constant("EPOCHS");
        json losses = json::array();
        auto begin = now();
        for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
            Tensor loss;
            version().batches(true, [&](Tensor x, Tensor y) {
                loss = version().train_step(x, y);
                return true;
            });
            synchronize();
            losses.push_back(loss.item<double>());
            json event{{"epoch", epoch}, {"epochs", epochs}, {"loss", losses.back()}};
            channel_.send({{"id", request}, {"event", event}});
        }
        auto seconds = since(begin);
        return {{"seconds", seconds},
                {"losses", losses},
                {"metric", version().evaluate_test()},
                {"items", version().training_examples() * epochs}};
    }

    /// A product of two matrices, a copy or a convolution, on tensors made before, between two fences. A stream computes in order, so
    /// reading the last result shows whether the fence has waited.
    json work(const json& args) {
        auto kind = args.at("kind").get<std::string>();
        int64_t size = args.at("size"), count = args.at("count");
        if (kind != "product" && kind != "copy" && kind != "convolution")
            throw std::invalid_argument("Expected a kind of work: product, copy, convolution. Received: '" + kind + "'");
        if (working_ != std::make_pair(kind, size)) {
            auto options = torch::device(torch::cuda::is_available() ? torch::kCUDA : torch::kCPU).dtype(torch::kFloat32);
            using Shape = std::vector<int64_t>;
            auto shape = kind == "product" ? Shape{size, size} : kind == "copy" ? Shape{size} : Shape{16, size, 32, 32};
            given_.clear();
            for (int number = 0; number < 3; ++number) given_.push_back(torch::rand(shape, options));
            if (kind == "convolution") given_[1] = torch::rand({size, size, 3, 3}, options);
            working_ = {kind, size};
        }
        synchronize();
        auto begin = now();
        for (int64_t number = 0; number < count; ++number)
            if (kind == "product") torch::mm_out(given_[2], given_[0], given_[1]);
            else if (kind == "copy") given_[2].copy_(given_[0]);
            else given_[2] = torch::conv2d(given_[0], given_[1], {}, 1, 1);
        synchronize();
        auto seconds = since(begin);
        return {{"seconds", seconds}, {"late_s", late(given_[2])}};
    }

    json memory() {
        rusage used;
        getrusage(RUSAGE_SELF, &used);
#ifdef __APPLE__
        return {{"peak_bytes", used.ru_maxrss}};
#else
        return {{"peak_bytes", used.ru_maxrss * 1024}};
#endif
    }

  private:
    Version& version() {
        if (!version_) throw std::runtime_error("Expected 'open' before this. Received: no version");
        return *version_;
    }

    torch::nn::Module& model() {
        model_ = version().model();
        return *model_;
    }

    json constant(const char* name) { return version().constants().at(name); }

    /// Have start.py compile the version; return the library's path.
    std::string compile(const json& constants) {
        std::string command;
        for (auto& word : json::parse(std::getenv("ROSETTA_COMPILER"))) command += errors::quoted(word) + " ";
        command += errors::quoted(path);
        command += trains_ ? " train" : " infer";
        for (auto& name : constants) command += " " + errors::quoted(name);
        auto said = errors::output(command);
        auto answer = json::parse(said, nullptr, false);
        if (!answer.is_object()) throw std::runtime_error("start.py did not answer; see what it printed");
        if (answer.contains("library")) return answer["library"];
        throw CompileError(answer.at("message"), answer.at("line"), answer.at("traceback"));
    }

    /// Inputs and labels; no labels where there are none.
    std::pair<Tensor, Tensor> native(const Tensors& arrays) {
        std::pair<Tensor, Tensor> found;
        for (auto& [name, array] : arrays)
            if (name == LABELS)
                found.second = array;
            else
                found.first = array.is_floating_point() ? array.to(dtype_) : array;
        return found;
    }

    std::pair<Tensor, Tensor> batch(const std::string& file) { return native(tensors::load(file)); }

    std::string canonical(const std::string& name) const {
        auto known = canonical_names_.find(name);
        return known == canonical_names_.end() ? name : known->second;
    }

    struct Pass {
        std::map<std::string, recording::Seen> seen;  // by canonical name
        std::vector<std::string> order;
        Tensor logits;
    };

    /// One forward pass and what its layers were given and gave.
    Pass record(const Tensor& inputs, bool training) {
        recording::Recording recording(model());
        Pass pass;
        pass.logits = forward(inputs, training);
        recording.check();
        for (auto& layer : recording.order) {
            auto seen = recording.seen.at(layer);
            auto name = canonical(layer);
            if (recurrent_.count(name) && seen.output.defined() && seen.output.dim() == 3)
                seen.output = seen.output.select(1, -1);  // of every step's output, the last
            pass.order.push_back(name);
            pass.seen[name] = seen;
        }
        return pass;
    }

    Tensor forward(const Tensor& inputs, bool training) {
        torch::NoGradGuard guard;
        model().train(training);
        return version().forward(inputs.to(model().parameters().at(0).device()));
    }

    /// Parameters and running statistics, by canonical name.
    Tensors parameters() {
        Tensors found;
        for (auto& item : model().named_parameters()) found[canonical(item.key())] = item.value().detach();
        for (auto& item : model().named_buffers())
            if (item.value().is_floating_point()) found[canonical(item.key())] = item.value();
        return found;
    }

    Tensors parameters_and_state() {
        auto found = parameters();
        auto& states = version().optimizer().state();
        for (auto& item : model().named_parameters()) {
            auto known = states.find(item.value().unsafeGetTensorImpl());
            if (known == states.end()) continue;
            auto keep = [&](const std::string& slot, const Tensor& value) {
                if (value.defined()) found[slot + "/" + canonical(item.key())] = value;
            };
            auto state = known->second.get();
            if (auto sgd = dynamic_cast<torch::optim::SGDParamState*>(state)) keep("velocity", sgd->momentum_buffer());
            if (auto adam = dynamic_cast<torch::optim::AdamParamState*>(state))
                keep("m", adam->exp_avg()), keep("v", adam->exp_avg_sq());
            if (auto adamw = dynamic_cast<torch::optim::AdamWParamState*>(state))
                keep("m", adamw->exp_avg()), keep("v", adamw->exp_avg_sq());
        }
        return found;
    }

    json save(const json& args, const Tensors& arrays) {
        tensors::save(args.at("out"), arrays);
        return json::object();
    }

    void synchronize() {
        if (torch::cuda::is_available()) torch::cuda::synchronize();
    }

    Channel& channel_;
    std::unique_ptr<Version> version_;
    std::shared_ptr<torch::nn::Module> model_;
    json declared_, expected_;
    std::map<std::string, std::string> canonical_names_;  // by LibTorch's, where they are not the same
    std::set<std::string> recurrent_;
    bool trains_ = true;
    int opened_ = 0;
    torch::ScalarType dtype_ = torch::kFloat32;
    std::vector<std::pair<Tensor, Tensor>> prepared_;
    std::pair<std::string, int64_t> working_;  // what `work` was last asked for, and its tensors
    std::vector<Tensor> given_;
};

json answer(Session& session, const std::string& op, const json& args, int64_t request) {
    if (op == "hello") return session.hello();
    if (op == "open") return session.open(args);
    if (op == "create") return session.create(args);
    if (op == "parameters") return session.write_parameters(args);
    if (op == "trace") return session.trace(args);
    if (op == "activations") return session.activations(args);
    if (op == "predict") return session.predict(args);
    if (op == "evaluate") return session.evaluate(args);
    if (op == "apply") return session.apply(args);
    if (op == "train") return session.train(args);
    if (op == "batches") return session.batches(args);
    if (op == "prepare") return session.prepare(args);
    if (op == "steps") return session.steps(args);
    if (op == "feed") return session.feed(args);
    if (op == "fit") return session.fit(request);
    if (op == "work") return session.work(args);
    if (op == "memory") return session.memory();
    if (op == "stop") return json::object();
    throw std::invalid_argument("Expected an operation of docs/protocol.md. Received: '" + op + "'");
}

int descriptor(const char* name) {
    auto value = std::getenv(name);
    if (!value) {
        std::cerr << "Expected " << name << ", the number of a file descriptor. Received: nothing.\n";
        std::exit(2);
    }
    int number = std::atoi(value);
    unsetenv(name);
    return number;
}

}  // namespace

int main() {
    Channel channel(descriptor("ROSETTA_READ"), descriptor("ROSETTA_WRITE"));
    Session session(channel);
    for (std::string op; op != "stop";) {
        auto request = channel.receive();
        int64_t number = request.at("id");
        op = request.at("op");
        json failure;
        try {
            auto result = answer(session, op, request.value("args", json::object()), number);
            channel.send({{"id", number}, {"ok", true}, {"result", result}});
            continue;
        } catch (const CompileError& error) {
            failure = errors::described(error, error.line);
            failure["type"] = "CompileError", failure["traceback"] = error.said;
        } catch (const std::exception& error) {
            failure = errors::described(error, errors::line(session.path, session.library));
        }
        channel.send({{"id", number}, {"ok", false}, {"error", failure}});
    }
    std::cout.flush();
    std::_Exit(0);  // past the destructors of libraries that are still in use
}
