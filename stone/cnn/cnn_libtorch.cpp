// CNN on CIFAR-10 in LibTorch, PyTorch's C++ API.

// %% Imports
#include <cstdio>

#include <dlrosetta/data.hpp>
#include <torch/torch.h>

namespace data = dlrosetta::data;
namespace nn = torch::nn;
namespace F = torch::nn::functional;
using torch::Tensor;
using torch::data::samplers::RandomSampler, torch::data::samplers::SequentialSampler;

// %% Configuration
int64_t SEED = 0;
int64_t BATCH_SIZE = 64;
int64_t EPOCHS = 10;
double LEARNING_RATE = 0.01;
double MOMENTUM = 0.9;
double DROPOUT1 = 0.25, DROPOUT2 = 0.25, DROPOUT3 = 0.5;
const torch::Device DEVICE = torch::cuda::is_available() ? torch::kCUDA : torch::kCPU;

// %% Data
struct Examples : torch::data::datasets::BatchDataset<Examples, torch::data::Example<>> {
    Tensor images, labels;

    Examples(Tensor images, Tensor labels) : images(images), labels(labels) {}

    std::optional<size_t> size() const override { return labels.size(0); }

    torch::data::Example<> get_batch(at::ArrayRef<size_t> indices) override {
        Tensor index = torch::tensor(std::vector<int64_t>(indices.begin(), indices.end()));
        return {images.index_select(0, index), labels.index_select(0, index)};
    }
};

std::pair<Examples, Examples> load_data() {
    auto [train, test] = data::cifar10();
    auto examples = [](data::Images& set) {
        int64_t n = set.labels.size();
        Tensor images = torch::from_blob(set.images.data(), {n, 3, 32, 32}, torch::kFloat32).clone();  // in 0–1
        return Examples(images, torch::from_blob(set.labels.data(), {n}, torch::kInt64).clone());
    };
    return {examples(train), examples(test)};
}

template <typename Sampler>
auto batches(const Examples& examples) {
    return torch::data::make_data_loader<Sampler>(examples, BATCH_SIZE);
}

// %% Model
struct CNNImpl : nn::Module {
    nn::Conv2d conv1{register_module("conv1", nn::Conv2d(nn::Conv2dOptions(3, 50, 3).padding(1)))};
    nn::Conv2d conv2{register_module("conv2", nn::Conv2d(nn::Conv2dOptions(50, 50, 3).padding(1)))};
    nn::Dropout dropout1{register_module("dropout1", nn::Dropout(DROPOUT1))};
    nn::Conv2d conv3{register_module("conv3", nn::Conv2d(nn::Conv2dOptions(50, 100, 3).padding(1)))};
    nn::Conv2d conv4{register_module("conv4", nn::Conv2d(nn::Conv2dOptions(100, 100, 3).padding(1)))};
    nn::Dropout dropout2{register_module("dropout2", nn::Dropout(DROPOUT2))};
    nn::Linear fc1{register_module("fc1", nn::Linear(100 * 8 * 8, 512))};
    nn::Dropout dropout3{register_module("dropout3", nn::Dropout(DROPOUT3))};
    nn::Linear fc2{register_module("fc2", nn::Linear(512, 10))};

    CNNImpl() {
        for (auto& parameter : named_parameters()) {
            if (parameter.value().dim() > 1) {
                nn::init::xavier_uniform_(parameter.value());
            } else {
                nn::init::zeros_(parameter.value());
            }
        }
    }

    Tensor forward(Tensor x) {                         // (N, 3, 32, 32)
        x = F::relu(conv1(x));                         // (N, 50, 32, 32)
        x = F::relu(torch::max_pool2d(conv2(x), 2));   // (N, 50, 16, 16)
        x = dropout1(x);
        x = F::relu(conv3(x));                         // (N, 100, 16, 16)
        x = F::relu(torch::max_pool2d(conv4(x), 2));   // (N, 100, 8, 8)
        x = dropout2(x);
        x = F::relu(fc1(torch::flatten(x, 1)));        // (N, 512)
        x = dropout3(x);
        return fc2(x);                                 // (N, 10)
    }
};
TORCH_MODULE(CNN);

CNN build_model() {
    CNN model;
    model->to(DEVICE);
    return model;
}

// %% Loss
Tensor loss_fn(CNN& model, Tensor images, Tensor labels) {
    return F::cross_entropy(model(images), labels);
}

// %% Optimizer
torch::optim::SGD make_optimizer(CNN& model) {
    return torch::optim::SGD(model->parameters(), torch::optim::SGDOptions(LEARNING_RATE).momentum(MOMENTUM));
}

// %% Train step
Tensor train_step(CNN& model, torch::optim::SGD& optimizer, Tensor images, Tensor labels) {
    images = images.to(DEVICE), labels = labels.to(DEVICE);
    model->train();
    optimizer.zero_grad();
    Tensor loss = loss_fn(model, images, labels);
    loss.backward();
    optimizer.step();
    return loss.detach();
}

// %% Evaluation
double evaluate(CNN& model, const Examples& examples) {
    c10::InferenceMode guard;
    model->eval();
    Tensor correct = torch::zeros({}, torch::dtype(torch::kInt64).device(DEVICE));
    auto loader = batches<SequentialSampler>(examples);
    for (auto& [images, labels] : *loader) {
        correct += (model(images.to(DEVICE)).argmax(1) == labels.to(DEVICE)).sum();
    }
    return correct.item<double>() / *examples.size();
}

// %% Run
int main() {
    torch::manual_seed(SEED);
    auto [train, test] = load_data();
    CNN model = build_model();
    auto optimizer = make_optimizer(model);
    for (int64_t epoch = 1; epoch <= EPOCHS; ++epoch) {
        Tensor loss;
        auto loader = batches<RandomSampler>(train);
        for (auto& [images, labels] : *loader) {
            loss = train_step(model, optimizer, images, labels);
        }
        std::printf("epoch %ld: loss %.3f\n", epoch, loss.item<double>());
    }
    std::printf("test accuracy %.3f\n", evaluate(model, test));
}
